KIND="fuzz"
def cases(seed,bench): return []
