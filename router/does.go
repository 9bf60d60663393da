package router

import (
	"strings"

	"shardproxy/query"
	"shardproxy/tally"
)

// doesOf returns what a text does, as far as it tells; normal is the text without its values.
func doesOf(st *query.Statement, normal string) (all tally.Does) {
	if st.Opaque {
		return tally.DoesAll
	}
	for i := range st.Commands {
		all |= commandDoes(&st.Commands[i])
	}
	// ALTER SYSTEM, CREATE TABLE AS EXECUTE: the kinds are those that sessions need.
	if word, _, _ := strings.Cut(normal, " "); strings.EqualFold(word, "alter") || strings.EqualFold(word, "create") {
		all |= tally.Defines
	}
	return all
}

func commandDoes(c *query.Command) tally.Does {
	writes := tally.Does(0)
	if len(c.Writes) > 0 {
		writes = tally.Writes
	}
	switch c.Kind {
	case query.KindSelect, query.KindCopyTo, query.KindDeclare:
		return tally.Reads | writes
	case query.KindExplain:
		if c.Reads {
			return tally.Reads
		}
		return tally.Reads | writes
	case query.KindDML, query.KindCopyFrom:
		return tally.Writes
	case query.KindExecute:
		return tally.Reads | tally.Writes // what was prepared is not in the text
	case query.KindDDL:
		return tally.Defines
	case query.KindFetch:
		return tally.Reads
	case query.KindOther:
		if c.Effects&query.EffectUnknown != 0 {
			return tally.Calls
		}
		if writes != 0 { // TRUNCATE
			return writes
		}
	}
	return tally.Others
}
