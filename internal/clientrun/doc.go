// Package clientrun runs the proxy as its users run it, runs client programs
// against it, and compares what two runs of a client printed.
//
// It serves the packages whose tests let real clients talk to the proxy and to
// PostgreSQL itself (drivertest, ormtest). It makes no servers and writes no
// configuration; nothing in it is meant for the product. A Program may be
// stopped by any goroutine, once; the rest keeps no state.
package clientrun
