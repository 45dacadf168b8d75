package logs

import (
	"reflect"

	"github.com/go-logr/logr"
	"k8s.io/klog/v2"
)

// HideBodiesOfLogger does what HideBodies does for the logger that k8s.io/component-base has given klog, which takes no filter. It is
// called when that has been given.
func HideBodiesOfLogger() {
	sink := klog.Background().GetSink()
	if reflect.TypeOf(sink) == reflect.TypeOf(klog.NewKlogr().GetSink()) {
		return // klog's own, which has the filter
	}
	options := []klog.LoggerOption{klog.ContextualLogger(true)}
	if writer, ok := sink.(interface{ WriteKlogBuffer([]byte) }); ok {
		options = append(options, klog.WriteKlogBuffer(writer.WriteKlogBuffer))
	}
	klog.SetLoggerWithOptions(logr.New(bodySink{sink}), options...)
}

// bodySink is a logr.LogSink without bodies.
type bodySink struct{ logr.LogSink }

func (s bodySink) Init(info logr.RuntimeInfo) {
	info.CallDepth++ // Info
	s.LogSink.Init(info)
}

func (s bodySink) Info(level int, message string, keysAndValues ...any) {
	message, keysAndValues = bodyFilter{}.FilterS(message, keysAndValues)
	s.LogSink.Info(level, message, keysAndValues...)
}

func (s bodySink) WithValues(keysAndValues ...any) logr.LogSink {
	return bodySink{s.LogSink.WithValues(keysAndValues...)}
}

func (s bodySink) WithName(name string) logr.LogSink { return bodySink{s.LogSink.WithName(name)} }

func (s bodySink) WithCallDepth(depth int) logr.LogSink {
	if inner, ok := s.LogSink.(logr.CallDepthLogSink); ok {
		return bodySink{inner.WithCallDepth(depth)}
	}
	return s
}
