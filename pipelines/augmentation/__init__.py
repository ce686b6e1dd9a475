"""Random changes of pictures: parameters sampled for each picture from (seed, epoch, picture), and their application.

`sample` and its random numbers need numpy alone; `apply` works on a batch of pictures on their device, for training and
for the preview alike.
"""
