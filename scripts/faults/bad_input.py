KIND="bad_input"
def cases(seed,bench): return []
