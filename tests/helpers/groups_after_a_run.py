"""What test_distributed starts in two processes: the command line with the words given, and a look for their groups."""

import sys
import weakref

import torch.distributed as dist

from simdistill.cli import main

if __name__ == "__main__":
    new_group, destroy, groups, left = dist.new_group, dist.destroy_process_group, [], []

    def noted(*words, **more):
        group = new_group(*words, **more)
        groups.extend(map(weakref.ref, (dist.group.WORLD, group)))
        return group

    def looked_for():
        destroy()
        left.extend(str(group()) for group in groups if group() is not None)

    dist.new_group, dist.destroy_process_group = noted, looked_for
    code = main(sys.argv[1:])
    sys.exit(code or ", ".join(left) or (None if len(groups) == 2 else f"{len(groups)} groups"))
