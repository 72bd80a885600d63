"""torchrun, ended when the stage that started it is killed."""

from torch.distributed.run import main

from steps.stage import end_with_parent

if __name__ == "__main__":
    end_with_parent()
    main()
