"""What a person triggers: one file per deployment."""

from talking_points.plotting import trust_no_matplotlibrc

trust_no_matplotlibrc()  # in worker processes too, which begin at the import of what they run
