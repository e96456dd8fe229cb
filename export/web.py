"""From a run folder to the folder that the team of a browser takes: edgecsd deliver, for that device.

python export/web.py RUN --index INDEX --images PHOTOS --out FOLDER
"""

import sys

from edgecsd.cli import main

if __name__ == "__main__":
    main(["deliver", "--device", "web", *sys.argv[1:]])
