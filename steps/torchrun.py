"""torchrun, whose processes end when it is killed: python -m steps.torchrun OPTION ... steps/lifetime.py PROGRAM ..."""

import os

from torch.distributed.run import main

if __name__ == "__main__":
    os.environ["DECANT_PARENT"] = str(os.getpid())  # theirs
    main()
