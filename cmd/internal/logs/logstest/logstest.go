// Package logstest looks for secrets in what a program has written.
package logstest

import (
	"encoding/base64"
	"strings"
	"testing"
)

// window is how many characters of a secret in a row are too many: fewer than a line of a hex dump shows.
const window = 12

// NoSecrets fails if a log holds any part of the secrets, as they are or in base64. Secrets are by name.
func NoSecrets(t *testing.T, log string, secrets map[string]string) {
	t.Helper()
	for name, secret := range secrets {
		for form, text := range map[string]string{"": secret, " in base64": base64.StdEncoding.EncodeToString([]byte(secret))} {
			if part := partIn(log, text); part != "" {
				t.Errorf("the log holds a part of the %s%s: %q in %.500q", name, form, part, line(log, part))
			}
		}
	}
}

func partIn(log, text string) string {
	for i := 0; i+window <= len(text); i++ {
		if part := text[i : i+window]; strings.Contains(log, part) {
			return part
		}
	}
	if len(text) < window && strings.Contains(log, text) {
		return text
	}
	return ""
}

func line(log, part string) string {
	for line := range strings.Lines(log) {
		if strings.Contains(line, part) {
			return line
		}
	}
	return ""
}

// KeyBody is that part of a private key in PEM that no other key has: without the lines that say what it is, and without its head, which says
// the same in DER.
func KeyBody(pem string) string {
	var body strings.Builder
	for line := range strings.Lines(pem) {
		if !strings.HasPrefix(line, "-----") {
			body.WriteString(strings.TrimSpace(line))
		}
	}
	const head = 64
	return body.String()[head:]
}
