package tally

import (
	"math"
	"math/bits"
	"time"
)

// Times are counted in buckets of half a power of two, from 8 us to a day: a percentile is the middle of its bucket, at
// most a fifth from the truth.
const (
	leastBits   = 13 // 2^13 ns are 8 us
	bucketCount = 64
)

func bucketOf(t time.Duration) int {
	n := bits.Len64(uint64(t)) - 1 // t is from 2^n on
	if n < leastBits {
		return 0
	}
	half := int(uint64(t) >> (n - 1) & 1) // the upper half of the power, from 1.5 * 2^n on
	return min((n-leastBits)*2+half+1, bucketCount-1)
}

// boundsOf returns from where on, and up to where, times are in a bucket.
func boundsOf(i int) (from, to time.Duration) {
	if i == 0 {
		return 0, 1 << leastBits
	}
	n := leastBits + (i-1)/2
	if (i-1)%2 == 0 {
		return 1 << n, 3 << (n - 1)
	}
	return 3 << (n - 1), 1 << (n + 1)
}

// quantile returns about the time that so many percent do not exceed; 0 when nothing was counted.
func quantile(counts *[bucketCount]uint32, percent int, least, most time.Duration) time.Duration {
	all := uint64(0)
	for _, n := range counts {
		all += uint64(n)
	}
	if all == 0 {
		return 0
	}
	rank := (all*uint64(percent) + 99) / 100
	seen := uint64(0)
	for i, n := range counts {
		if seen += uint64(n); seen >= rank {
			from, to := boundsOf(i)
			middle := time.Duration(math.Sqrt(float64(max(from, 1)) * float64(to)))
			return min(max(middle, least), max(most, least))
		}
	}
	return most
}
