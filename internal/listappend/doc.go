// Package listappend judges what clients saw of transactions that append to lists
// and read them: it infers from a history which transactions depend on which, and
// finds the anomalies that an isolation level forbids. The idea is that of Elle
// (Kingsbury, Alvaro: Inferring Isolation Anomalies from Experimental
// Observations): a list that is read tells in which order all its values were
// appended, so that versions need no guessing. Names of anomalies are Adya's.
//
// What is reported did happen, if the history is true; what an observer could not
// see is not found. It refuses histories that say nothing (a value appended to one
// key twice) and takes no part in making them: no I/O, no clocks.
//
// Concurrency: functions keep nothing; a Report belongs to who asked for it.
package listappend
