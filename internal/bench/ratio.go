package main

import (
	"fmt"
	"math"
	"slices"
)

// series is one figure, round by round; NaN where a round has none.
type series []float64

// over divides two series round by round.
func (s series) over(by series) series {
	var out series
	for i := range min(len(s), len(by)) {
		if by[i] > 0 {
			out = append(out, s[i]/by[i])
		} else {
			out = append(out, math.NaN())
		}
	}
	return out
}

// known returns the rounds that have a figure, in rising order.
func (s series) known() series {
	var out series
	for _, v := range s {
		if !math.IsNaN(v) && !math.IsInf(v, 0) {
			out = append(out, v)
		}
	}
	slices.Sort(out)
	return out
}

// median returns the middle of the known figures, NaN if there are none.
func (s series) median() float64 {
	k := s.known()
	if len(k) == 0 {
		return math.NaN()
	}
	return (k[(len(k)-1)/2] + k[len(k)/2]) / 2
}

// text writes the median with a number of digits, or "-".
func (s series) text(digits int) string {
	m := s.median()
	if math.IsNaN(m) {
		return "-"
	}
	return fmt.Sprintf("%.*f", digits, m)
}

// span writes the median and, of several rounds, the least and the greatest.
func (s series) span(digits int) string {
	k := s.known()
	if len(k) < 2 {
		return s.text(digits)
	}
	return fmt.Sprintf("%s (%.*f-%.*f)", s.text(digits), digits, k[0], digits, k[len(k)-1])
}

// rounds collects figures by row, side and name.
type rounds map[string]map[string]map[string]series

// add appends a round's figure.
func (r rounds) add(row, side, figure string, v float64) {
	if r[row] == nil {
		r[row] = map[string]map[string]series{}
	}
	if r[row][side] == nil {
		r[row][side] = map[string]series{}
	}
	r[row][side][figure] = append(r[row][side][figure], v)
}

// get returns a figure's rounds; empty if there are none.
func (r rounds) get(row, side, figure string) series { return r[row][side][figure] }

// against returns a figure of one side divided, round by round, by another's.
func (r rounds) against(row, side, other, figure string) series {
	return r.get(row, side, figure).over(r.get(row, other, figure))
}
