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
	if p.Single == nil {
		return "", ""
	}
	return s.resetCommand(p.Single)
}

func (s *session) resetCommand(c *query.Command) (text, tag string) {
	if s.base == nil || len(c.Settings) != 1 || (c.Kind != query.KindReset && c.Kind != query.KindSet) {
		return "", ""
	}
	st := c.Settings[0]
	var restore []pool.Setting
	all := s.looksLike(s.base)
	switch base, inBase := all.Get(st.Name); {
	case st.Local && !inBase:
		return "", ""
	case st.ResetAll:
		restore = all.All()
	case st.Default && inBase:
		restore = []pool.Setting{base}
	default:
		return "", ""
	}
	tag = "RESET"
	if c.Kind == query.KindSet {
		tag = "SET"
	}
	if !st.ResetAll {
		if text := restore[0].Command(st.Local); text != "" {
			return text, tag
		}
	}
	var b strings.Builder
	b.WriteString("DO $_sp_$BEGIN ")
	if st.ResetAll {
		b.WriteString("RESET ALL; ")
	}
	for _, it := range restore {
		b.WriteString("PERFORM ")
		b.Write(it.AppendCall(nil, st.Local))
		b.WriteString("; ")
	}
	b.WriteString("END$_sp_$")
	return b.String(), tag
}

// splicedText is a text of several commands of which some were replaced.
type splicedText struct {
	tags []string // by command: what the client is told of a replaced one, "" for others
	cuts []textCut
}

// textCut is where, counted in characters, what was sent goes on behind a
// replaced command, and how many more the client's text has up to there than what
// was sent for the command.
type textCut struct{ end, shift int }

// spliceResets replaces the RESETs that resetText replaces in a text of several
// commands; nil when there are none.
func (s *session) spliceResets(p *router.Plan, text []byte) (string, *splicedText) {
	if s.base == nil || p.Single != nil || !p.Exact || p.Effects&query.EffectSetting == 0 || p.Statement == nil {
		return "", nil
	}
	var b strings.Builder
	sp := &splicedText{tags: make([]string, len(p.Statement.Commands))}
	at := 0
	for i := range p.Statement.Commands {
		c := &p.Statement.Commands[i]
		instead, tag := s.resetCommand(c)
		if tag == "" {
			continue
		}
		b.Write(text[at:c.Start])
		b.WriteString(instead)
		at = c.End
		sp.tags[i] = tag
		sp.cuts = append(sp.cuts, textCut{
			end:   s.characters([]byte(b.String())),
			shift: s.characters(text[c.Start:c.End]) - s.characters([]byte(instead)),
		})
	}
	if at == 0 {
		return "", nil
	}
	b.Write(text[at:])
	return b.String(), sp
}

// shift returns what to add to a position in what was sent, counted from 1.
func (sp *splicedText) shift(pos int) (n int) {
	for _, c := range sp.cuts {
		if pos > c.end {
			n += c.shift
		}
	}
	return n
}

// deallocatesAll reports whether running the plan drops every prepared statement.
func deallocatesAll(p *router.Plan) bool {
	c := p.Single
	return c != nil && (c.Kind == query.KindDeallocate && c.All || c.Kind == query.KindDiscard && c.Target == "ALL")
}
