"""When the machine may power off. The program idle-stop beside this folder puts it together:

    machine.py   reads the machine: connections, packets, titles' own queries, files
    nft.py       the kernel's table that counts UDP packets by peer, as text and read back
    flows.py     traffic of peers -> players and newcomers                            (pure)
    windows.py   maintenance windows, and files that keep the machine awake           (pure)
    decision.py  rules, what was known, what is seen -> stay or power off, and why    (pure)

Python's standard library alone: it runs on the image.
"""
