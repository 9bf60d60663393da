package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math"
	"strconv"
	"strings"
	"time"
	"unique"
)

// redacted stands for a secret wherever one would be printed.
const redacted = "***"

// Secret is a password or what is as good as one. It prints as "***" by every
// verb and encoder, also deep inside a struct; only Reveal tells it. The zero
// value is the empty secret. Equal secrets compare equal with ==.
type Secret struct {
	// A handle, because fmt does not call the methods of values in unexported
	// fields: it would print a string there, and prints an address of this.
	h unique.Handle[string]
}

// NewSecret returns the secret s.
func NewSecret(s string) Secret {
	if s == "" {
		return Secret{}
	}
	return Secret{unique.Make(s)}
}

// Empty reports whether there is no secret.
func (s Secret) Empty() bool { return s == Secret{} }

// Reveal returns the secret itself. Neither log it nor put it into an error.
func (s Secret) Reveal() string {
	if s.Empty() {
		return ""
	}
	return s.h.Value()
}

// String returns "***", or nothing for an empty secret.
func (s Secret) String() string {
	if s.Empty() {
		return ""
	}
	return redacted
}

// Format prints String for every verb.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) }

// MarshalText returns String, for JSON and YAML.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// LogValue returns String, for log/slog.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// FileMode holds permission bits; the file writes them in octal.
type FileMode fs.FileMode

// String returns the bits in octal with a leading 0.
func (m FileMode) String() string { return fmt.Sprintf("%04o", uint32(m)) }

func parseFileMode(s string) (FileMode, error) {
	n, err := strconv.ParseUint(strings.TrimPrefix(s, "0o"), 8, 32)
	if err != nil || n > 0o777 {
		return 0, errors.New("is not a file mode")
	}
	return FileMode(n), nil
}

// Size is a number of bytes.
type Size int64

// sizeUnits go from big to small. PostgreSQL's units (kB, MB, GB, TB) are
// powers of 1024, and so are ours: MB and MiB are the same.
var sizeUnits = [...]struct {
	name, postgres string
	bytes          int64
}{
	{"TiB", "TB", 1 << 40}, {"GiB", "GB", 1 << 30}, {"MiB", "MB", 1 << 20}, {"KiB", "kB", 1 << 10}, {"B", "B", 1},
}

// String returns the size in the biggest unit that divides it, such as 64MiB.
func (s Size) String() string {
	if s == 0 {
		return "0"
	}
	for _, u := range sizeUnits {
		if int64(s)%u.bytes == 0 {
			return strconv.FormatInt(int64(s)/u.bytes, 10) + u.name
		}
	}
	return strconv.FormatInt(int64(s), 10) + "B"
}

var (
	errSize     = errors.New("is not a size")
	errDuration = errors.New("is not a duration")
	errTooBig   = errors.New("is too big")
)

// ParseSize reads a size as the file writes it: 64MB, 1GiB, 0.
func ParseSize(s string) (Size, error) { return parseSize(s) }

// parseSize reads a whole number with a unit; 0 needs none.
func parseSize(s string) (Size, error) {
	i := strings.IndexFunc(s, func(r rune) bool { return r < '0' || r > '9' })
	if i < 0 {
		i = len(s)
	}
	n, err := strconv.ParseInt(s[:i], 10, 64)
	if err != nil {
		if errors.Is(err, strconv.ErrRange) {
			return 0, errTooBig
		}
		return 0, errSize
	}
	unit := strings.TrimLeft(s[i:], " ")
	if unit == "" && n == 0 {
		return 0, nil
	}
	for _, u := range sizeUnits {
		if strings.EqualFold(unit, u.name) || strings.EqualFold(unit, u.postgres) {
			if n > math.MaxInt64/u.bytes {
				return 0, errTooBig
			}
			return Size(n * u.bytes), nil
		}
	}
	return 0, errSize
}

const day = 24 * time.Hour

// ParseDuration reads a duration as the file has it.
func ParseDuration(s string) (time.Duration, error) { return parseDuration(s) }

// parseDuration reads Go's notation, in which d for 24 hours may stand alone;
// 0 needs no unit.
func parseDuration(s string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(s, "d"); ok {
		n, err := strconv.ParseUint(days, 10, 32)
		if err != nil {
			return 0, errDuration
		}
		if n > uint64(math.MaxInt64/day) {
			return 0, errTooBig
		}
		return time.Duration(n) * day, nil
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		return 0, errDuration
	}
	return d, nil
}

// formatDuration writes d as parseDuration reads it, without parts that are zero.
func formatDuration(d time.Duration) string {
	if d == 0 {
		return "0"
	}
	if d%day == 0 && d > 0 {
		return strconv.FormatInt(int64(d/day), 10) + "d"
	}
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
