"""From a run folder to the folder that a server takes, where the query model runs beside the index.

python export/server.py RUN --index INDEX --images PHOTOS --out FOLDER
"""

from edgecsd.cli.delivery_program import delivery_program

HOW_TO = "Load it with onnxruntime; one session a process, threads as its cores; decode as golden/ has it."

if __name__ == "__main__":
    delivery_program(__doc__, recipe="server", how_to=HOW_TO)
