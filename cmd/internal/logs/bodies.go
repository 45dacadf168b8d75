// Package logs keeps secrets out of the logs of the programs.
package logs

import (
	"fmt"
	"slices"
	"strings"

	"k8s.io/klog/v2"
)

// HideBodies makes klog leave out the bodies of Kubernetes API requests and answers, which client-go writes at --v=8 and higher: they
// have the keys of Secrets, tokens of service accounts, and tokens of those who ask for metrics. It is called before anything is logged.
func HideBodies() { klog.SetLogFilter(bodyFilter{}) }

// bodyFilter is a klog.LogFilter.
type bodyFilter struct{}

func (bodyFilter) Filter(args []any) []any { return args }

func (bodyFilter) FilterF(format string, args []any) (string, []any) { return format, args }

func (bodyFilter) FilterS(message string, keysAndValues []any) (string, []any) {
	if !strings.HasSuffix(message, " Body") {
		return message, keysAndValues
	}
	hidden := slices.Clone(keysAndValues)
	for i := 0; i+1 < len(hidden); i += 2 {
		if hidden[i] == "body" {
			hidden[i+1] = fmt.Sprintf("(%d characters, not logged)", len(fmt.Sprint(hidden[i+1])))
		}
	}
	return message, hidden
}
