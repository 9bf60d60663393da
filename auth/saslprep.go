package auth

import (
	"unicode/utf8"

	"github.com/xdg-go/stringprep"
	"golang.org/x/text/unicode/norm"
)

// prepPassword normalises a password as PostgreSQL's pg_saslprep does, on the
// server and in libpq: RFC 4013, with the password taken as it is when it is
// not UTF-8, holds a character that the profile forbids, or has nothing left.
//
// It is not stringprep.SASLprep, which differs in two points and would lock
// users out: PostgreSQL maps U+200B to a space (it stands in both mapping
// tables) and looks for forbidden characters before NFKC, not after.
func prepPassword(password string) string {
	ascii := true
	for i := range len(password) {
		ascii = ascii && password[i] < utf8.RuneSelf
	}
	if ascii || !utf8.ValidString(password) {
		return password
	}
	mapped, err := passwordProfile().Prepare(password)
	if err != nil || mapped == "" {
		return password
	}
	return norm.NFKC.String(mapped)
}

// passwordProfile is RFC 4013 without its normalisation step.
func passwordProfile() stringprep.Profile {
	return stringprep.Profile{
		Mappings: []stringprep.Mapping{nonASCIISpaces(), stringprep.TableB1},
		Prohibits: []stringprep.Set{
			stringprep.TableA1, stringprep.TableC1_2, stringprep.TableC2_1, stringprep.TableC2_2,
			stringprep.TableC3, stringprep.TableC4, stringprep.TableC5, stringprep.TableC6,
			stringprep.TableC7, stringprep.TableC8, stringprep.TableC9,
		},
		CheckBiDi: true,
	}
}

// nonASCIISpaces maps RFC 3454 table C.1.2 to the space.
func nonASCIISpaces() stringprep.Mapping {
	m := stringprep.Mapping{}
	for _, r := range "\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u200b\u202f\u205f\u3000" {
		m[r] = []rune{' '}
	}
	return m
}
