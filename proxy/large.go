package proxy

import "regexp"

// Texts that are too large to be parsed are relayed as they come. What such a
// text may have set the audit finds out, but for custom settings, which it must
// know by name. A text that may set one is looked for while it passes, and then
// ties its session to the connection.

// setsCustom matches what sets, or may set, a custom setting.
var setsCustom = regexp.MustCompile(`(?i)set_config|\bset\s+(session\s+)?"?[a-z_\x80-\xff][\w$\x80-\xff]*"?\s*\.`)

// overlap is how much of a piece is looked at again together with the next.
const overlap = 192

// lookInto looks at the next piece of a large text.
func (s *session) lookInto(piece []byte) {
	if s.setsUnknown {
		return
	}
	seam := append(s.largeTail, piece[:min(len(piece), overlap)]...)
	if setsCustom.Match(seam) || setsCustom.Match(piece) {
		s.setsUnknown = true
	}
	s.largeTail = append(s.largeTail, piece[max(0, len(piece)-overlap):]...)
	if extra := len(s.largeTail) - overlap; extra > 0 {
		s.largeTail = append(s.largeTail[:0], s.largeTail[extra:]...)
	}
}

// forwardLarge forwards a frame whose text is not parsed.
func (s *session) forwardLarge(size int) {
	s.largeTail = s.largeTail[:0]
	s.uploadLarge = true
	s.forward(size)
}
