"""`make bench`: each measurement says against what, and how far its runs lie apart."""

from bench import latencycost, measuring, probecost, startup

probecost.run()
latencycost.run()
startup.first_sample()
startup.status()
startup.apply()
measuring.run()
