"""From a run folder to the folder that the team of a Raspberry Pi or another small board takes.

python export/raspberry_pi.py RUN --index INDEX --images PHOTOS --out FOLDER
"""

from edgecsd.cli.delivery_program import delivery_program

HOW_TO = "Load it with ai_edge_litert.Interpreter (or tflite_runtime with numpy < 2)."

if __name__ == "__main__":
    delivery_program(__doc__, recipe="raspberry-pi", how_to=HOW_TO)
