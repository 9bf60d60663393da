package proxy

import (
	"strings"

	"shardproxy/pool"
	"shardproxy/query"
	"shardproxy/router"
)

// resetText returns what is sent in place of a RESET of settings that the
// client's start-up packet gave: to the server they are settings like others,
// and RESET would take them away. tag is what the client is told in the end, ""
// when the text needs no replacement.
func (s *session) resetText(p *router.Plan) (text, tag string) {
	c := p.Single
	if s.base == nil || c == nil || len(c.Settings) != 1 || (c.Kind != query.KindReset && c.Kind != query.KindSet) {
		return "", ""
	}
	st := c.Settings[0]
	var restore []pool.Setting
	switch base, inBase := s.base.Get(st.Name); {
	case st.Local:
		return "", ""
	case st.ResetAll:
		restore = s.base.All()
	case st.Default && inBase:
		restore = []pool.Setting{base}
	default:
		return "", ""
	}
	var b strings.Builder
	b.WriteString("DO $_sp_$BEGIN ")
	if st.ResetAll {
		b.WriteString("RESET ALL; ")
	}
	for _, it := range restore {
		b.WriteString("PERFORM ")
		b.Write(it.AppendCall(nil))
		b.WriteString("; ")
	}
	b.WriteString("END$_sp_$")
	if c.Kind == query.KindSet {
		return b.String(), "SET"
	}
	return b.String(), "RESET"
}

// deallocatesAll reports whether running the plan drops every prepared statement.
func deallocatesAll(p *router.Plan) bool {
	c := p.Single
	return c != nil && (c.Kind == query.KindDeallocate && c.All || c.Kind == query.KindDiscard && c.Target == "ALL")
}
