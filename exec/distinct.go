package exec

import "encoding/binary"

// Distinct returns the values of a column in binary format, each once and without NULL, as the only column of other Arrays,
// which are bounded by what is said here and not by the budget. ok is false, as soon as that is known, when there are more than most, or
// more than so many bytes of them. Values are the same when their bytes are.
func (a *Arrays) Distinct(column, most, bytes int) (values *Arrays, ok bool) {
	from := &a.columns[column]
	if !from.Binary {
		return nil, false
	}
	values = NewArrays([]ArrayColumn{from.ArrayColumn}, NewBudget(0))
	to := &values.columns[0]
	seen := map[string]struct{}{}
	r := chunkReader{all: from.elements.all}
	for range a.rows {
		n := int32(binary.BigEndian.Uint32(r.next(4)))
		if n < 0 {
			continue
		}
		if int(n) > bytes {
			return nil, false
		}
		v := r.next(int(n))
		if _, ok := seen[string(v)]; ok {
			continue
		}
		if values.rows == most || to.elements.length+4+len(v) > bytes {
			return nil, false
		}
		seen[string(v)] = struct{}{}
		to.add(v)
		values.rows++
	}
	return values, true
}

// chunkReader reads chunks from their beginning.
type chunkReader struct {
	all  [][]byte
	at   int // in the first
	copy []byte
}

// next returns the next n bytes, which are there, until it is called again.
func (r *chunkReader) next(n int) []byte {
	for len(r.all) > 0 && r.at == len(r.all[0]) {
		r.all, r.at = r.all[1:], 0
	}
	if n == 0 {
		return []byte{} // nil would be NULL
	}
	if first := r.all[0]; r.at+n <= len(first) {
		r.at += n
		return first[r.at-n : r.at]
	}
	r.copy = r.copy[:0]
	for len(r.copy) < n {
		if r.at == len(r.all[0]) {
			r.all, r.at = r.all[1:], 0
		}
		part := r.all[0][r.at:min(len(r.all[0]), r.at+n-len(r.copy))]
		r.copy = append(r.copy, part...)
		r.at += len(part)
	}
	return r.copy
}
