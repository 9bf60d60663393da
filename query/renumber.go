package query

import "strconv"

// Renumber appends a piece of a text to dst, which begins and ends between tokens, with
// its parameters ($n) numbered as number says.
func Renumber(dst, piece []byte, number func(int) int) []byte {
	last := 0
	for t := nextToken(piece, 0); t.kind != tokEnd && t.kind != tokBad; t = nextToken(piece, t.end) {
		if t.kind != tokParam {
			continue
		}
		n, err := strconv.Atoi(string(piece[t.start+1 : t.end]))
		if err != nil {
			continue
		}
		dst = append(append(dst, piece[last:t.start]...), '$')
		dst = strconv.AppendInt(dst, int64(number(n)), 10)
		last = t.end
	}
	return append(dst, piece[last:]...)
}
