package settings

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"

	v1 "k8s.io/api/core/v1"
)

// MaxName is how long the name of a load balancer may be.
const MaxName = 64

// ValidName says whether the API takes a name: ^[a-zA-Z0-9_-]{1,64}$.
func ValidName(name string) bool {
	return name != "" && len(name) <= MaxName && SanitizeName(name) == name
}

// SanitizeName replaces every character that the API does not take in a name with a dash.
func SanitizeName(name string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '_', r == '-':
			return r
		}
		return '-'
	}, name)
}

// ShortDigest is eight hexadecimal digits that stand for a longer text.
func ShortDigest(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:4])
}

// Cut is the text, or its first length bytes if it is longer.
func Cut(text string, length int) string { return text[:max(0, min(len(text), length))] }

// PortName is the name of a Service port's frontend and backend, as UpCloud's own CCM makes it.
func PortName(port v1.ServicePort) string {
	if port.Name == "" {
		return fmt.Sprintf("config_%d", port.Port)
	}
	return port.Name
}
