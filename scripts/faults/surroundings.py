KIND="surroundings"
def cases(seed,bench): return []
