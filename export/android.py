"""From a run folder to the folder that the team of an Android phone takes.

python export/android.py RUN --index INDEX --images PHOTOS --out FOLDER
"""

from edgecsd.cli.delivery_program import delivery_program

HOW_TO = "Load it with LiteRT (CompiledModel or Interpreter); feed the uint8 bitmap bytes, R G B, without alpha."

if __name__ == "__main__":
    delivery_program(__doc__, recipe="android", how_to=HOW_TO)
