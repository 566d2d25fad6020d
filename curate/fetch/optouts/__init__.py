"""What machines are told of training on a photo: read where it is said, kept as `authface.records.Signal`, judged.

`sites`: files of a host, asked for once a day. `watch`: answers and pages on the way to a photo. `embedded`: the
photo's own file. `statements`: what the words of all but the last mean. `judge`: what of it refuses a photo, also one
that the set has.
"""
