KIND="power"
def cases(seed,bench): return []
