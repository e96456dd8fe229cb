"""From a run folder to the folder that the team of a browser takes.

python export/web.py RUN --index INDEX --images PHOTOS --out FOLDER
"""

from edgecsd.cli.delivery_program import delivery_program

HOW_TO = "Load it with onnxruntime-web; feed a Uint8Array tensor of type uint8."

if __name__ == "__main__":
    delivery_program(__doc__, recipe="web", how_to=HOW_TO)
