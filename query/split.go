package query

import "slices"

// Split returns the spans of the statements of a file, as psql would send them one by
// one: parted by semicolons that stand neither in parentheses nor in the body of a
// routine (BEGIN ATOMIC). Lines that begin with a backslash between statements are
// psql's own, and left out. What the lexer cannot read is one statement up to the end.
func Split(sql []byte) (all []Span) {
	for at := 0; at < len(sql); {
		start, ok := skipSpace(sql, at)
		if ok && start < len(sql) && sql[start] == '\\' {
			at = lineEnd(sql, start)
			continue
		}
		end, next := statementEnd(sql, start)
		if end > start {
			all = append(all, Span{Start: int32(start), End: int32(end)})
		}
		at = next
	}
	return all
}

// statementEnd returns where the statement ends that begins at a place, and where the
// next one may begin.
func statementEnd(sql []byte, at int) (end, next int) {
	s := splitter{end: at}
	for {
		t := nextToken(sql, at)
		switch {
		case t.kind == tokEnd, t.kind == tokBad:
			if t.kind == tokBad {
				s.end = len(sql)
			}
			return s.end, len(sql)
		case t.kind == tokSemicolon && s.depth <= 0 && s.blocks == 0:
			return s.end, t.end
		}
		s.see(sql, t)
		at = t.end
	}
}

// splitter follows one statement, as psql's lexer does.
type splitter struct {
	end    int // of the last token
	words  []string
	depth  int // of parentheses
	blocks int // of BEGIN and CASE in a routine's body
}

// routineWords is how many words are looked at to find out whether a routine is made.
const routineWords = 4

func (s *splitter) see(sql []byte, t token) {
	s.end = t.end
	switch t.kind {
	case tokOpen:
		s.depth++
	case tokClose:
		s.depth--
	case tokWord:
		if len(s.words) < routineWords {
			w, _ := optionWord(sql, t)
			s.words = append(s.words, w)
		}
		switch {
		case s.depth > 0 || !s.routine():
		case isWord(sql, t, "begin"), isWord(sql, t, "case") && s.blocks > 0:
			s.blocks++
		case isWord(sql, t, "end") && s.blocks > 0:
			s.blocks--
		}
	}
}

// routine reports whether the statement makes a function or a procedure.
func (s *splitter) routine() bool {
	if len(s.words) < 2 || s.words[0] != "create" {
		return false
	}
	rest := s.words[1:]
	if len(s.words) >= 4 && rest[0] == "or" && rest[1] == "replace" {
		rest = rest[2:]
	}
	return slices.Contains([]string{"function", "procedure"}, rest[0])
}
