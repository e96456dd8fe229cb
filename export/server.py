"""From a run folder to the folder for a server, where the query model runs beside the index: edgecsd deliver.

python export/server.py RUN --index INDEX --images PHOTOS --out FOLDER
"""

import sys

from edgecsd.cli import main

if __name__ == "__main__":
    main(["deliver", "--device", "server", *sys.argv[1:]])
