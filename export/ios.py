"""From a run folder to the folder that the team of an iPhone or iPad takes.

python export/ios.py RUN --index INDEX --images PHOTOS --out FOLDER
"""

from edgecsd.cli.delivery_program import delivery_program

HOW_TO = "Add the .mlpackage to the Xcode project; feed an RGB CVPixelBuffer of that size through the generated class."

if __name__ == "__main__":
    delivery_program(__doc__, recipe="ios", how_to=HOW_TO)
