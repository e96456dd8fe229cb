"""From a run folder to the folder that the team of an Android phone takes: edgecsd deliver, for that device.

python export/android.py RUN --index INDEX --images PHOTOS --out FOLDER
"""

import sys

from edgecsd.cli import main

if __name__ == "__main__":
    main(["deliver", "--device", "android", *sys.argv[1:]])
