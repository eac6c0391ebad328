"""How long a compiled kernel takes on a GPU that is not here, read from its machine code.

The machine code carries its own schedule: cycles until the next instruction, the scoreboards that
an instruction sets and those that it waits for. The warps that one multiprocessor holds step
through it in order and compete for issue slots, pipes, shared memory, tensor cores and the port to
L2, which is slowed to a multiprocessor's share of the memory by the bytes that miss L2. Loops run a
few turns, the rest is extrapolated; programs are dealt out over the multiprocessors.

Unknown to it: bank conflicts, uncoalesced addresses, hits in the first cache, misses of the
instruction cache, copies by tensor maps and warps with roles of their own (all warps take the
longest path), clocks under a power limit. Only ``cuda:90`` is calibrated (``calibration.py``):
there it is right within 1.4 times for most and within 2.1 for all. The ratio of two kernels is
safer than a time.

    instructions   text of nvdisasm -> instructions
    pipes          what an instruction takes on a machine
    paths          loops, and what a warp runs
    warps          one multiprocessor, cycle by cycle
    launches       programs on the whole machine
    turns          how often the loops of a source turn
    matching       loops of the machine code and of the source
    expectation    a plan's kernels at a shape
    roofline       where there is no machine code
"""
