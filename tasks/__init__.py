"""What can fail, be retried and skipped: one file per stage."""

from talking_points.plotting import trust_no_matplotlibrc

trust_no_matplotlibrc()  # in worker processes too, which begin at the import of what they run
