package shardmap

import (
	"bytes"
	"encoding/binary"
	"math"
)

// Dates count days and timestamps microseconds from 2000-01-01, as PostgreSQL
// keeps them. The extreme values are the infinities.

const (
	microsPerSecond = int64(1_000_000)
	microsPerDay    = 86400 * microsPerSecond

	firstDate = -2451545             // 4714-11-24 BC
	endDate   = 2147483494 - 2451545 // the day after 5874897-12-31
	firstTime = -211813488000000000  // 4714-11-24 00:00:00 BC
	endTime   = 9223371331200000000  // 294277-01-01 00:00:00
	// Years are astronomical: 0 is 1 BC. The calendar's first weeks, in 4714
	// BC, and its last year are left to PostgreSQL.
	firstYear     = -4712
	lastDateYear  = 5874896
	lastStampYear = 294275
)

// dateOf reads a binary date.
func dateOf(b []byte) (int32, error) {
	if len(b) < 4 {
		return 0, checkWidth(b, 4)
	}
	days := int32(binary.BigEndian.Uint32(b))
	if (days < firstDate || days >= endDate) && days != math.MinInt32 && days != math.MaxInt32 {
		return 0, &ValueError{codeDateOverflow, "date out of range"}
	}
	return days, checkWidth(b, 4) // in PostgreSQL's order

}

// timestampOf reads a binary timestamp, with or without time zone.
func timestampOf(b []byte) (int64, error) {
	if len(b) < 8 {
		return 0, checkWidth(b, 8)
	}
	v := int64(binary.BigEndian.Uint64(b))
	if (v < firstTime || v >= endTime) && v != math.MinInt64 && v != math.MaxInt64 {
		return 0, &ValueError{codeDateOverflow, "timestamp out of range"}
	}
	return v, checkWidth(b, 8)

}

// infinity returns +1 or -1 for the two infinities, else 0.
func infinity(b []byte) int {
	switch {
	case bytes.EqualFold(b, []byte("infinity")):
		return 1
	case bytes.EqualFold(b, []byte("-infinity")):
		return -1
	}
	return 0
}

// parseDate reads YYYY-MM-DD, perhaps with " BC", and the infinities. All else
// is unproven: what it means may depend on DateStyle or on the day.
func parseDate(b []byte) (int32, error) {
	switch infinity(b) {
	case 1:
		return math.MaxInt32, nil
	case -1:
		return math.MinInt32, nil
	}
	b, bc := bytes.CutSuffix(b, []byte(" BC"))
	days, rest, ok := cutDay(b, bc, lastDateYear)
	if !ok || len(rest) > 0 {
		return 0, ErrUnproven
	}
	return int32(days), nil
}

// parseTimestamp reads YYYY-MM-DD[( |T)HH:MM[:SS[.ffffff]][Z|(+|-)HH[[:]MM[:SS]]]][ BC]
// and the infinities. A timestamp with time zone must name its offset, else it
// depends on TimeZone; a timestamp without ignores it, as PostgreSQL does.
func parseTimestamp(k KeyType, b []byte) (int64, error) {
	switch infinity(b) {
	case 1:
		return math.MaxInt64, nil
	case -1:
		return math.MinInt64, nil
	}
	b, bc := bytes.CutSuffix(b, []byte(" BC"))
	days, rest, ok := cutDay(b, bc, lastStampYear)
	if !ok {
		return 0, ErrUnproven
	}
	v := days * microsPerDay
	hasZone := false
	if len(rest) > 0 {
		var clock, offset int64
		if clock, rest, ok = cutClock(rest); !ok {
			return 0, ErrUnproven
		}
		if hasZone = len(rest) > 0; hasZone {
			if offset, ok = parseOffset(rest); !ok {
				return 0, ErrUnproven
			}
		}
		v += clock
		if k == Timestamptz {
			v -= offset
		}
	}
	if k == Timestamptz && !hasZone {
		return 0, ErrUnproven
	}
	return v, nil
}

// cutDay reads YYYY-MM-DD off the front and returns the days since 2000-01-01.
// A year has four digits, or more without a leading zero.
func cutDay(b []byte, bc bool, lastYear int) (days int64, rest []byte, ok bool) {
	digits := 0
	for digits < len(b) && isDigit(b[digits]) {
		digits++
	}
	if digits < 4 || digits > 7 || digits > 4 && b[0] == '0' || len(b) < digits+6 {
		return 0, nil, false
	}
	year := 0
	for _, c := range b[:digits] {
		year = year*10 + int(c-'0')
	}
	b = b[digits:]
	month, okMonth := twoDigits(b[1:])
	day, okDay := twoDigits(b[4:])
	if b[0] != '-' || b[3] != '-' || !okMonth || !okDay || year == 0 {
		return 0, nil, false
	}
	if bc {
		year = 1 - year
	}
	if year < firstYear || year > lastYear || month < 1 || month > 12 || day < 1 || day > daysIn(year, month) {
		return 0, nil, false
	}
	return daysSince2000(year, month, day), b[6:], true
}

// cutClock reads ( |T)HH:MM[:SS[.ffffff]] off the front and returns
// microseconds. 24:00:00 and leap seconds are left to PostgreSQL.
func cutClock(b []byte) (micros int64, rest []byte, ok bool) {
	if len(b) < 6 || b[0] != ' ' && b[0] != 'T' || b[3] != ':' {
		return 0, nil, false
	}
	hour, okHour := twoDigits(b[1:])
	minute, okMinute := twoDigits(b[4:])
	if !okHour || !okMinute || hour > 23 || minute > 59 {
		return 0, nil, false
	}
	micros = int64(hour*3600+minute*60) * microsPerSecond
	b = b[6:]
	if len(b) < 3 || b[0] != ':' {
		return micros, b, true
	}
	second, okSecond := twoDigits(b[1:])
	if !okSecond || second > 59 {
		return 0, nil, false
	}
	micros += int64(second) * microsPerSecond
	b = b[3:]
	if len(b) == 0 || b[0] != '.' {
		return micros, b, true
	}
	b = b[1:]
	digits := 0
	for unit := microsPerSecond / 10; digits < len(b) && isDigit(b[digits]); digits++ {
		micros += int64(b[digits]-'0') * unit
		unit /= 10
	}
	// A seventh digit would have to be rounded as PostgreSQL does.
	return micros, b[digits:], digits >= 1 && digits <= 6
}

// parseOffset reads Z, +HH, +HHMM, +HH:MM or +HH:MM:SS and returns microseconds
// east of Greenwich.
func parseOffset(b []byte) (micros int64, ok bool) {
	if len(b) == 1 && b[0] == 'Z' {
		return 0, true
	}
	if len(b) < 3 || b[0] != '+' && b[0] != '-' {
		return 0, false
	}
	hour, ok := twoDigits(b[1:])
	var minute, second int
	okMinute, okSecond := true, true
	switch rest := b[3:]; {
	case len(rest) == 0:
	case len(rest) == 2:
		minute, okMinute = twoDigits(rest)
	case len(rest) == 3 && rest[0] == ':':
		minute, okMinute = twoDigits(rest[1:])
	case len(rest) == 6 && rest[0] == ':' && rest[3] == ':':
		minute, okMinute = twoDigits(rest[1:])
		second, okSecond = twoDigits(rest[4:])
	default:
		return 0, false
	}
	if !ok || !okMinute || !okSecond || hour > 15 || minute > 59 || second > 59 {
		return 0, false
	}
	micros = int64(hour*3600+minute*60+second) * microsPerSecond
	if b[0] == '-' {
		micros = -micros
	}
	return micros, true
}

// twoDigits reads the number at the front of b.
func twoDigits(b []byte) (int, bool) {
	if len(b) < 2 || !isDigit(b[0]) || !isDigit(b[1]) {
		return 0, false
	}
	return int(b[0]-'0')*10 + int(b[1]-'0'), true
}

// daysIn is the length of a month of the proleptic Gregorian calendar.
func daysIn(year, month int) int {
	switch month {
	case 4, 6, 9, 11:
		return 30
	case 2:
		if year%4 == 0 && (year%100 != 0 || year%400 == 0) {
			return 29
		}
		return 28
	}
	return 31
}

// daysSince2000 counts from a year that begins in March, so that the leap day
// is its last.
func daysSince2000(year, month, day int) int64 {
	if month < 3 {
		year, month = year-1, month+12
	}
	const shift = 4800 // a multiple of 400 that makes all years positive
	y := int64(year) + shift
	const epoch = 2483590 // the same count of 2000-01-01
	return 365*y + y/4 - y/100 + y/400 + int64((153*(month-3)+2)/5+day) - epoch
}
