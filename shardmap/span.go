package shardmap

// Span is the keys between bounds, of which there may be none, or several. The zero
// Span holds all keys. It keeps its buffers: use one again after Reset. It is not safe
// for concurrent use.
type Span struct {
	// lo is the sort key of the least key, hi that of the first one beyond; hi counts
	// when below is set. No sort key is less than the empty one.
	lo, hi []byte
	below  bool
	none   bool   // a bound is NULL
	key    []byte // of the value at hand
}

// Reset makes it the span of all keys.
func (s *Span) Reset() { s.lo, s.hi, s.below, s.none = s.lo[:0], s.hi[:0], false, false }

// Kept returns the size of the buffers in bytes.
func (s *Span) Kept() int { return cap(s.lo) + cap(s.hi) + cap(s.key) }

// None empties the span, as a comparison with NULL does.
func (s *Span) None() { s.none = true }

// Above leaves the keys of type k that are greater than v, or with included not less.
// Errors are those of Place, but for *UnplacedError; the span then is as before.
func (s *Span) Above(k KeyType, v Value, included bool) error {
	if err := s.read(k, v); err != nil {
		return err
	}
	if !included && !next(k, &s.key) {
		s.none = true
		return nil
	}
	if string(s.key) > string(s.lo) {
		s.lo = append(s.lo[:0], s.key...)
	}
	return nil
}

// Below leaves the keys of type k that are less than v, or with included not greater.
// Errors are those of Above.
func (s *Span) Below(k KeyType, v Value, included bool) error {
	if err := s.read(k, v); err != nil {
		return err
	}
	if included && !next(k, &s.key) {
		return nil // it is the greatest that there is
	}
	if !s.below || string(s.key) < string(s.hi) {
		s.hi, s.below = append(s.hi[:0], s.key...), true
	}
	return nil
}

// Holds reports whether a value of a key of type k is in the span. Errors are those of Above.
func (s *Span) Holds(k KeyType, v Value) (bool, error) {
	if err := s.read(k, v); err != nil {
		return false, err
	}
	return !s.none && string(s.key) >= string(s.lo) && (!s.below || string(s.key) < string(s.hi)), nil
}

// Empty reports whether no key is in the span.
func (s *Span) Empty() bool { return s.none || s.below && string(s.hi) <= string(s.lo) }

func (s *Span) read(k KeyType, v Value) (err error) {
	s.key, err = v.sortKey(s.key[:0], k)
	return err
}

// next makes a sort key that of the next key of type k; false when there is none. Where
// keys are dense it is the next string of bytes.
func next(k KeyType, key *[]byte) bool {
	switch k {
	case Text, Bytea, Numeric:
		*key = append(*key, 0)
		return true
	}
	b := *key
	for i := len(b) - 1; i >= 0; i-- {
		if b[i]++; b[i] != 0 {
			return true
		}
	}
	return false
}
