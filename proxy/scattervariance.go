package proxy

import (
	"encoding/binary"
	"fmt"
	"strings"

	"shardproxy/router"
	"shardproxy/shardmap"
)

// Variances and standard deviations of integers and numerics, from the number N of the values, their sum and that of their
// squares, to the digit as PostgreSQL's numeric_stddev_internal computes them from the same three:
//
//   - (N * squares - sum * sum) / (N * (N - 1)), or by N * N, is the variance. Products and differences of numerics are exact,
//     with as many digits behind the point as PostgreSQL gives them there, and the operator / chooses the digits of a quotient by the same
//     function. Nothing is divided when the numerator is not positive: 0.
//   - The deviation is the root of the variance v as it was rounded to s digits behind the point, to s digits, halves up. The function
//     sqrt rounds to s digits or more, so that rounding what it gives once more can go wrong in one way: the root lies below
//     a half, and was rounded up to it. That is so when the square of the half, r - 10^-s / 2, is greater than v, and then r
//     is one unit too large.
//   - NaN and infinities make NaN. So does the difference here, which then is of infinities or NaN, and NaN is greater than 0.
//
// The product of numerics has no more than 16383 digits behind the point: what has more than half of that is gathered. Floating-point
// numbers are gathered, for which the difference of sums loses what PostgreSQL's own way keeps.

// numericOID is the type numeric.
const numericOID = 1700

// finestSquared is the largest scale of a numeric whose square is exact.
const finestSquared = 16383 / 2

// variance is the aggregate that a name stands for; column is the sum, behind it are those of the squares and of the number.
func variance(name string, column int) string {
	n, sum, squares := total(column+2), total(column), total(column+1)
	least, by := "0", n
	if name != "var_pop" && name != "stddev_pop" { // of a sample
		least, by = "1", "("+n+" - 1)"
	}
	numerator := "(" + n + " * " + squares + " - " + sum + " * " + sum + ")"
	v := "CASE WHEN " + n + " > " + least + " THEN CASE WHEN " + numerator + " > 0 THEN " + numerator + " / (" + n + " * " + by + ") ELSE 0::pg_catalog.numeric END END"
	if !strings.HasPrefix(name, "stddev") {
		return "(" + v + ")"
	}
	return `(SELECT CASE WHEN v > 0 AND v < 'Infinity' THEN r - CASE WHEN r > 0 AND (r - unit * 0.5) * (r - unit * 0.5) > v THEN unit ELSE 0 END ELSE v END
FROM (SELECT v, pg_catalog.round(pg_catalog.sqrt(v), pg_catalog.scale(v)) AS r, pg_catalog.textcat('1e-', pg_catalog.scale(v)::pg_catalog.text)::pg_catalog.numeric AS unit
FROM (SELECT ` + v + ` AS v OFFSET 0) AS a OFFSET 0) AS b)`
}

// total is the sum of a column as a numeric.
func total(column int) string {
	return fmt.Sprintf(`pg_catalog.sum("shardproxy".c%d)::pg_catalog.numeric`, column)
}

// notTogether reports whether the parts of an aggregate would be less exact than the whole, or cannot be sent.
func (c *scattering) notTogether(about []description) bool {
	for _, p := range c.way.Final {
		switch p.Kind {
		case router.PieceMean:
			if about[p.Input].columns[p.Column-1].typ == float4OID {
				return true
			}
		case router.PieceVariance:
			if typ := about[p.Input].columns[p.Column-1].typ; typ != numericOID && typ != shardmap.Int8.OID() {
				return true
			}
		case router.PieceParts:
			if !c.way.Grouped {
				break
			}
			for _, col := range about[p.Input].columns {
				if c.types[col.typ].array == 0 {
					return true
				}
			}
		}
	}
	return false
}

// watchScales notes which columns of what the shards give must not be too fine for their squares.
func (c *scattering) watchScales(inputs []gathered) {
	c.tooFine, c.squared = false, c.squared[:0]
	for _, p := range c.way.Final {
		if p.Kind == router.PieceVariance && inputs[p.Input].about.columns[p.Column-1].typ == numericOID {
			c.squared = append(c.squared, p)
		}
	}
}

// lookAtScales looks at a row of an input, whose fields begin behind first others.
func (c *scattering) lookAtScales(input, first int, row []byte) {
	if len(c.squared) == 0 {
		return
	}
	fields := rowFields(row)
	for _, p := range c.squared {
		if i := first + p.Column - 1; p.Input == input && i < len(fields) && len(fields[i]) >= 8 {
			c.tooFine = c.tooFine || binary.BigEndian.Uint16(fields[i][6:]) > finestSquared
		}
	}
}
