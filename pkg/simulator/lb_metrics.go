package simulator

import (
	"context"
	"net/http"
	"strings"
)

// The metrics of a load balancer, as the OpenAPI document has them. Without a data plane nothing was counted.

type loadBalancerMetrics struct {
	Frontends []frontendMetrics `json:"frontends"`
	Backends  []backendMetrics  `json:"backends"`
}

type commonMetrics struct {
	RequestBytes    int64 `json:"total_request_bytes"`
	ResponseBytes   int64 `json:"total_response_bytes"`
	DeniedResponses int64 `json:"total_denied_responses"`
	Responses1xx    int64 `json:"total_http_responses_1xx"`
	Responses2xx    int64 `json:"total_http_responses_2xx"`
	Responses3xx    int64 `json:"total_http_responses_3xx"`
	Responses4xx    int64 `json:"total_http_responses_4xx"`
	Responses5xx    int64 `json:"total_http_responses_5xx"`
	ResponsesOther  int64 `json:"total_http_responses_other"`
	Sessions        int64 `json:"total_sessions"`
	SessionRate     int64 `json:"session_rate"`
	CurrentSessions int64 `json:"current_sessions"`
}

type serverMetrics struct {
	FailedTransitions  int64 `json:"total_failed_checks_transitions"`
	ClientAborted      int64 `json:"total_client_aborted"`
	FailedConnections  int64 `json:"total_failed_connections"`
	InvalidResponses   int64 `json:"total_invalid_responses"`
	RoutedRequests     int64 `json:"total_routed_requests"`
	ServerAborted      int64 `json:"total_server_aborted"`
	Redispatches       int64 `json:"total_server_redispatches"`
	ConnectionRetries  int64 `json:"total_server_connection_retries"`
	ConnectionsWaiting int64 `json:"connections_waiting"`
	ConnectionTime     int64 `json:"avg_connection_time_ms"`
	QueueTime          int64 `json:"avg_queue_time_ms"`
	ResponseTime       int64 `json:"avg_server_response_time_ms"`
	TotalTime          int64 `json:"avg_total_time_ms"`
}

type frontendMetrics struct {
	commonMetrics
	FrontendID          int    `json:"frontend_id"`
	Name                string `json:"name"`
	RequestRate         int64  `json:"request_rate"`
	HTTPRequests        int64  `json:"total_http_requests"`
	DeniedRequests      int64  `json:"total_denied_requests"`
	InterceptedRequests int64  `json:"total_intercepted_requests"`
	DeniedConnections   int64  `json:"total_denied_connections"`
	DeniedSessions      int64  `json:"total_denied_sessions"`
	InvalidRequests     int64  `json:"total_invalid_requests"`
	CreatedAt           stamp  `json:"created_at"`
	UpdatedAt           stamp  `json:"updated_at"`
}

type backendMetrics struct {
	commonMetrics
	serverMetrics
	BackendID     int             `json:"backend_id"`
	Name          string          `json:"name"`
	Downtime      int64           `json:"downtime_s"`
	ActiveServers int64           `json:"active_servers"`
	BackupServers int64           `json:"backup_servers"`
	Members       []memberMetrics `json:"members"`
	CreatedAt     stamp           `json:"created_at"`
	UpdatedAt     stamp           `json:"updated_at"`
}

type memberMetrics struct {
	commonMetrics
	serverMetrics
	MemberID     int    `json:"member_id"`
	Name         string `json:"name"`
	BackendID    int    `json:"backend_id"`
	Status       string `json:"status"`
	CheckStatus  string `json:"check_status"`
	CheckCode    int64  `json:"check_http_code"`
	CheckText    string `json:"last_check_desc,omitempty"`
	FailedChecks int64  `json:"total_failed_checks"`
	CreatedAt    stamp  `json:"created_at"`
	UpdatedAt    stamp  `json:"updated_at"`
}

func (s *Simulator) getLoadBalancerMetrics(c *call) (any, error) {
	lb, err := s.loadBalancer(c)
	if err != nil {
		return nil, err
	}
	plane, ok := s.cfg.LoadBalancers.(LoadBalancerMeter)
	if !ok || !lb.ready {
		return s.metricsOf(lb, nil), nil
	}
	done := make(chan struct{})
	var counted []Measured
	var failure error
	uuid := lb.UUID
	s.operations.Go(func() {
		defer close(done)
		counted, failure = plane.Measure(context.WithoutCancel(c.request.Context()), uuid)
	})
	c.done = done
	c.then = func() (any, error) {
		if failure != nil {
			return nil, &problem{status: http.StatusServiceUnavailable, code: "SERVICE_UNAVAILABLE", title: failure.Error()}
		}
		return s.metricsOf(lb, counted), nil
	}
	return nil, nil
}

func (s *Simulator) metricsOf(lb *loadBalancer, counted []Measured) loadBalancerMetrics {
	out := loadBalancerMetrics{Frontends: []frontendMetrics{}, Backends: []backendMetrics{}}
	find := func(frontend, backend, member string) (sum Measured) {
		sum.Counts = map[string]int64{}
		for _, m := range counted {
			if m.Frontend != frontend || m.Backend != backend || m.Member != member {
				continue
			}
			sum.Status, sum.Check, sum.CheckText = m.Status, m.Check, m.CheckText
			for name, v := range m.Counts {
				sum.Counts[name] += v
			}
		}
		return sum
	}
	now := stamp(s.now())
	for i, f := range lb.Frontends {
		n := find(f.Name, "", "").Counts
		out.Frontends = append(out.Frontends, frontendMetrics{
			commonMetrics: commonOf(n), FrontendID: i + 1, Name: f.Name, RequestRate: n["req_rate"], HTTPRequests: n["req_tot"],
			DeniedRequests: n["dreq"], InterceptedRequests: n["intercepted"], DeniedConnections: n["dcon"],
			DeniedSessions: n["dses"], InvalidRequests: n["ereq"], CreatedAt: f.CreatedAt, UpdatedAt: now,
		})
	}
	for i, k := range lb.Backends {
		n := find("", k.Name, "").Counts
		b := backendMetrics{
			commonMetrics: commonOf(n), serverMetrics: serversOf(n), BackendID: i + 1, Name: k.Name, Downtime: n["downtime"],
			ActiveServers: n["act"], BackupServers: n["bck"], Members: []memberMetrics{}, CreatedAt: k.CreatedAt, UpdatedAt: now,
		}
		for j, m := range k.Members {
			got := find("", k.Name, m.Name)
			b.Members = append(b.Members, memberMetrics{
				commonMetrics: commonOf(got.Counts), serverMetrics: serversOf(got.Counts), MemberID: j + 1, Name: m.Name,
				BackendID: i + 1, Status: memberStatus(got.Status), CheckStatus: checkStatus(got.Check),
				CheckCode: got.Counts["check_code"], CheckText: got.CheckText, FailedChecks: got.Counts["chkfail"],
				CreatedAt: m.CreatedAt, UpdatedAt: now,
			})
		}
		out.Backends = append(out.Backends, b)
	}
	return out
}

func commonOf(n map[string]int64) commonMetrics {
	return commonMetrics{
		RequestBytes: n["bin"], ResponseBytes: n["bout"], DeniedResponses: n["dresp"], Responses1xx: n["hrsp_1xx"],
		Responses2xx: n["hrsp_2xx"], Responses3xx: n["hrsp_3xx"], Responses4xx: n["hrsp_4xx"], Responses5xx: n["hrsp_5xx"],
		ResponsesOther: n["hrsp_other"], Sessions: n["stot"], SessionRate: n["rate"], CurrentSessions: n["scur"],
	}
}

func serversOf(n map[string]int64) serverMetrics {
	return serverMetrics{
		FailedTransitions: n["chkdown"], ClientAborted: n["cli_abrt"], FailedConnections: n["econ"], InvalidResponses: n["eresp"],
		RoutedRequests: n["lbtot"], ServerAborted: n["srv_abrt"], Redispatches: n["wredis"], ConnectionRetries: n["wretr"],
		ConnectionsWaiting: n["qcur"], ConnectionTime: n["ctime"], QueueTime: n["qtime"], ResponseTime: n["rtime"],
		TotalTime: n["ttime"],
	}
}

// memberStatus and checkStatus turn HAProxy's words into the API's.
func memberStatus(text string) string {
	switch word, _, _ := strings.Cut(text, " "); word {
	case "UP":
		return "up"
	case "DOWN", "NOLB":
		return "down"
	case "MAINT":
		return "maint"
	case "DRAIN":
		return "drain"
	}
	return "unknown"
}

func checkStatus(text string) string {
	switch strings.TrimPrefix(text, "* ") {
	case "L4OK", "L6OK", "L7OK", "L7OKC":
		return "passing"
	case "", "UNK":
		return "unknown"
	case "INI":
		return "checking"
	}
	return "failed"
}
