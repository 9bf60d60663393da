package tally

// Does is a set of what statements do, as far as their texts tell.
type Does uint8

// What statements do.
const (
	Reads   Does = 1 << iota // read rows
	Writes                   // add, change or remove rows
	Defines                  // change definitions, roles or rights
	Calls                    // run code of which the text tells nothing: CALL, DO, calls of functions by the protocol
	Others                   // anything else, such as LOCK, VACUUM or SET
)

// DoesAll is what a statement may do of which nothing is known.
const DoesAll = Reads | Writes | Defines | Calls | Others

// DoesWords returns the words for what statements do, in the order of the bits.
func DoesWords() []string { return []string{"read", "write", "ddl", "call", "other"} }

// Words returns the words for what is in the set.
func (d Does) Words() (all []string) {
	for i, word := range DoesWords() {
		if d&(1<<i) != 0 {
			all = append(all, word)
		}
	}
	return all
}
