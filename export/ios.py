"""From a run folder to the folder that the team of an iPhone or iPad takes: edgecsd deliver, for that device.

python export/ios.py RUN --index INDEX --images PHOTOS --out FOLDER
"""

import sys

from edgecsd.cli import main

if __name__ == "__main__":
    main(["deliver", "--device", "ios", *sys.argv[1:]])
