// Package archtest holds the rules that the compiler does not: which package
// may import which, and house rules that can be seen in the source. The rules
// are data and pure functions here; the tests apply them to the repository and
// show each of them fail on a made-up offence.
//
// A package that is in no row of the table is an offence too: a new one is
// put into the design's table and into Floors in the same change.
package archtest
