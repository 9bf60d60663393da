package main

import (
	"fmt"
	"iter"
)

// diffCustomers are the keys of customers; the last is beyond int4.
var diffCustomers = []int64{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, -3, 0, 5_000_000_000}

// Keys of other types. Some differ only in what another type would make of them.
var (
	diffTenants = []string{"a", "b", "c", "d", "7", "007", "A", "", "é", "O''Hara"}
	diffDays    = []string{"2023-12-31", "2024-01-01", "2024-01-02", "2024-02-29", "1999-12-31"}
	diffIDs     = []string{"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "00000000-0000-0000-0000-000000000000", "5d1c4a1e-0000-4000-8000-00000000000f", "ffffffff-ffff-4fff-bfff-ffffffffffff"}
	diffAmounts = []string{"5", "5.50", "0", "-1.25", "100", "1e10"}
	diffTimes   = []string{"2024-01-01 00:00:00", "2024-01-01 12:30:00", "2023-06-05 04:03:02.000001"}
	diffCodes   = []string{"x", "y", "X", "abc", "12345678"}
	diffRegions = []string{"de", "fr", "us", "ch"}
)

// null turns the words of one number in n into NULL.
func null(i, n int, word string) string {
	if i%n == n-1 {
		return "NULL"
	}
	return word
}

// diffRows gives the rows at the start, as statements with the kind of their table.
func diffRows() iter.Seq2[string, byte] {
	return func(yield func(string, byte) bool) {
		put := func(kind byte, format string, args ...any) { yield("INSERT INTO "+fmt.Sprintf(format, args...), kind) }
		valuesRows(put)
		for i := range 6 {
			put('r', "products VALUES (%d, %s, %d.50)", i+1, null(i, 6, fmt.Sprintf("'p%d'", i%4)), i)
			put('s', "settings VALUES ('k%d', %s, %d)", i, null(i, 3, fmt.Sprintf("'n%d'", i%3)), i+1)
		}
		for i, c := range diffCustomers {
			put('k', "customers VALUES (%d, 'n%d', %s)", c, i%5, null(i, 3, fmt.Sprintf("'m%d'", i%4)))
			for j := range (i*7)%4 + 1 {
				put('k', "orders VALUES (%d, %d, %s, %d.50, %s)", i%4*3+j+1, c, null(i+j, 4, fmt.Sprintf("'n%d'", (i+j)%5)), (i*j)%7*10, null(i+j, 5, fmt.Sprint((i+j)%6+1)))
				if c < 1<<31 {
					put('k', "items VALUES (%d, %d, %s, %s)", i%4*3+j+i%2+1, c, null(i+j, 3, fmt.Sprint((i*j)%6+1)), null(j, 3, fmt.Sprint((i+j)%5)))
				}
			}
			put('k', "addresses VALUES (%d, 1, %s)", c, null(i, 5, fmt.Sprintf("'n%d'", i%3)))
			put('k', "loose VALUES (%d, %s)", c, null(i, 4, fmt.Sprintf("'n%d'", i%6)))
			put('k', "logs VALUES (%d, '%s', 'n%d')", c, diffDays[i%4], i%3)
			put('k', "tickets VALUES (%d, %d, 'n%d')", i+1, c, i%4)
		}
		for i, t := range diffTenants {
			put('k', "tenants VALUES ('%s', %s, %s)", t, null(i, 4, fmt.Sprintf("'n%d'", i%3)), null(i, 5, fmt.Sprint(i)))
			for j, d := range diffDays {
				if (i+j)%3 != 0 {
					put('k', "events VALUES ('%s', '%s', %s, %d)", t, d, null(i+j, 4, fmt.Sprintf("'n%d'", j)), i*j)
				}
			}
		}
		for i, id := range diffIDs {
			put('k', "devices VALUES ('%s', %d, 'n%d')", id, i+4, i)
		}
		for i, d := range diffDays {
			put('k', "days VALUES ('%s', 'n%d', %d)", d, i, i)
		}
		for i, a := range diffAmounts {
			put('k', "amounts VALUES (%s, 'n%d')", a, i)
		}
		for i := range 4 {
			put('k', "flags VALUES (%t, %d)", i%2 == 0, i)
		}
		for i, m := range diffTimes {
			put('k', "moments VALUES ('%s', 'n%d')", m, i)
		}
		for i, c := range diffCodes {
			put('k', "codes VALUES ('%s', 'n%d')", c, i)
		}
		for i, r := range diffRegions {
			put('k', "regions VALUES ('%s', 'n%d')", r, i)
		}
		for _, at := range []int{-5, 1, 9, 10, 11, 50} {
			put('k', "readings VALUES (%d, %d)", at, at*2)
		}
	}
}
