// Package audit writes down who has done what: logins, what operators order, what statements change, as lines of JSON.
//
// No value of a statement is in any of them. Writing never blocks who is written about: lines wait in bounded memory for one
// goroutine that writes them; what finds no room is counted, and a line says how many are missing. What is written and what not:
// docs/design/audit.md.
package audit
