"""From a run folder to the folder for a Raspberry Pi or another small board: edgecsd deliver.

python export/raspberry_pi.py RUN --index INDEX --images PHOTOS --out FOLDER
"""

import sys

from edgecsd.cli import main

if __name__ == "__main__":
    main(["deliver", "--device", "raspberry-pi", *sys.argv[1:]])
