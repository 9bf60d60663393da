// Package config reads, expands, validates and compares the configuration
// file and hands it out as a read-only value.
//
// A file is right or it is refused as a whole: Load reports every problem at
// once, each with its file, line and column, as *Problems. Nothing is guessed:
// unknown and duplicate keys, unset variables, unreadable files, values out of
// range and references to nothing are problems.
//
// The settings are the structs of this package. Each field's tags say its key
// in the file, its default, its bounds and whether a reload can change it:
//
//	yaml      the key; "-" for the name that a map gives its elements, "." for
//	          what stands behind that name when it is no section of keys
//	default   the value without the key, as it would be written in the file
//	min, max  the bounds, both included, as they would be written in the file
//	enum      the words allowed, separated by |
//	required  "true": the key must be there
//	path      "true": a file name, relative to the folder of the configuration file
//	form      "map": a list that is written as a map from names;
//	          "one": a list that may be written as its only element
//	blank     "true": a list whose elements may be empty
//	apply     "restart": a reload cannot change it
//
// The package decides nothing at run time, opens no connection and keeps no
// state. A *Config must not be changed after Load returned it, so it is safe
// for concurrent use. The reference for users is docs/configuration.md.
package config
