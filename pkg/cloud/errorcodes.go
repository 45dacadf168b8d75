package cloud

import (
	"net/http"
	"strings"

	"github.com/UpCloudLtd/upcloud-go-api/v8/upcloud"
	"github.com/UpCloudLtd/upcloud-go-api/v8/upcloud/client"
)

// RemedyRetry is the remedy of errors that pass: Kubernetes repeats the request. Programs that run once must say something else.
const RemedyRetry = "it is tried again by itself"

// meaning is what an error code says to us, and to the person who has to act.
type meaning struct {
	kind   error
	remedy string
}

const (
	remedyCredits = "add credits or raise the limits of the UpCloud account"
	remedyDevices = "detach a volume from the server, or let another server take this one"
	remedyWait    = RemedyRetry
)

// codes holds what a code's ending does not tell (see endings). The list of codes is the SDK's error_codes.go.
var codes = map[string]meaning{
	upcloud.ErrCodeAuthenticationFailed: {ErrUnauthorized, "check the UpCloud credentials"},
	upcloud.ErrCodeInsufficientCredits:  {ErrExhausted, remedyCredits},
	upcloud.ErrCodeTrialPlan:            {ErrForbidden, "end the account's trial by adding funds"},
	upcloud.ErrCodeServiceError:         {ErrUnavailable, remedyWait},

	upcloud.ErrCodeStorageDeviceLimitReached:  {ErrExhausted, remedyDevices},
	upcloud.ErrCodeStorageStateIllegal:        {ErrBusy, remedyWait},
	upcloud.ErrCodeServerStateIllegal:         {ErrBusy, remedyWait},
	upcloud.ErrCodeStorageAttached:            {ErrInUse, "detach the storage first"},
	upcloud.ErrCodeStorageAttachedAsDisk:      {ErrInUse, "detach the storage first"},
	upcloud.ErrCodeStorageAttachedAsCdrom:     {ErrInUse, "eject the storage first"},
	upcloud.ErrCodeStorageInUse:               {ErrInUse, "end what uses the storage first"},
	upcloud.ErrCodeStorageInconsistent:        {ErrServerState, "ask UpCloud's support about this storage"},
	upcloud.ErrCodeHotplugFailed:              {ErrBusy, "it is tried again by itself; if it persists, restart the server"},
	upcloud.ErrCodeIdeHotplugUnsupported:      {ErrServerState, "stop the server first"},
	upcloud.ErrCodeCDROMHotplugUnsupported:    {ErrServerState, "stop the server first"},
	upcloud.ErrCodeHotResizeNotEnabled:        {ErrInUse, "detach the storage or stop its server first"},
	upcloud.ErrCodeHotResizeUnavailable:       {ErrInUse, "detach the storage or stop its server first"},
	upcloud.ErrCodeResizeFailed:               {ErrUnavailable, remedyWait},
	upcloud.ErrCodeDeviceAddressInUse:         {ErrBusy, remedyWait},
	upcloud.ErrCodeDeviceAddressNotInUse:      {ErrBusy, remedyWait},
	upcloud.ErrCodeAddressAttached:            {ErrInUse, ""},
	upcloud.ErrCodeNoStoragesAttached:         {ErrNotFound, ""},
	upcloud.ErrCodePublicStorageAttach:        {ErrInvalid, "clone the public storage and attach the clone"},
	upcloud.ErrCodeStrictAntiAffinityNotMet:   {ErrExhausted, "relax the server group's anti-affinity"},
	upcloud.ErrCodeFloatingIpNotAvailable:     {ErrExhausted, "use another zone"},
	upcloud.ErrCodeNetworkNotEmpty:            {ErrInUse, "detach the servers from the network first"},
	upcloud.ErrCodeRouterAttached:             {ErrInUse, "detach the router from its networks first"},
	"RESOURCE_IN_USE":                         {ErrInUse, "remove it from the load balancers that use it first"},
	upcloud.ErrCodeDuplicateResource:          {ErrAlreadyExists, ""},
	upcloud.ErrCodeDuplicateRoute:             {ErrAlreadyExists, ""},
	upcloud.ErrCodeDuplicateLabelKeys:         {ErrInvalid, "give each label key once"},
	upcloud.ErrCodeResourceAlreadyExists:      {ErrAlreadyExists, ""},
	upcloud.ErrCodeNotFound:                   {ErrNotFound, ""},
	upcloud.ErrCodeInvalidRequest:             {ErrInvalid, ""},
	upcloud.ErrCodeValidationError:            {ErrInvalid, ""},
	upcloud.ErrCodeUnknownAttribute:           {ErrInvalid, ""},
	upcloud.ErrCodeMethodNotAllowed:           {ErrInvalid, ""},
	upcloud.ErrCodeInvalidLabelKey:            {ErrInvalid, ""},
	upcloud.ErrCodeInvalidLabelValue:          {ErrInvalid, ""},
	upcloud.ErrCodeInvalidRoute:               {ErrInvalid, ""},
	upcloud.ErrCodeInvalidRouteFamily:         {ErrInvalid, ""},
	upcloud.ErrCodeTooManyBootDisks:           {ErrInvalid, ""},
	upcloud.ErrCodeAddressOrUuidRequired:      {ErrInvalid, ""},
	upcloud.ErrCodeLocalNetworkNoRouter:       {ErrInvalid, ""},
	upcloud.ErrCodeBackupRuleConflict:         {ErrInvalid, ""},
	upcloud.ErrCodeDualStackInterface:         {ErrInvalid, ""},
	upcloud.ErrCodeCannotDeletePrivateAddress: {ErrInvalid, ""},
	upcloud.ErrCodeAlreadyInServerGroup:       {ErrAlreadyExists, ""},
	upcloud.ErrCodePtrRecordNotSupported:      {ErrInvalid, ""},
}

// endings tells the kind of the many codes that say it in their last words. The first that fits wins.
var endings = []struct {
	ending string
	meaning
}{
	{"_NOT_FOUND", meaning{ErrNotFound, ""}},
	{"_FORBIDDEN", meaning{ErrForbidden, "grant the API user the right to this resource"}},
	{"_LIMIT_REACHED", meaning{ErrExhausted, "remove something, or ask UpCloud to raise the limit"}},
	{"_RESOURCES_UNAVAILABLE", meaning{ErrExhausted, "try again later or use another zone"}},
	{"_EXISTS", meaning{ErrAlreadyExists, ""}},
	{"_INVALID", meaning{ErrInvalid, ""}},
	{"_MISSING", meaning{ErrInvalid, ""}},
	{"_ILLEGAL", meaning{ErrInvalid, ""}},
	{"_MISMATCH", meaning{ErrInvalid, ""}},
	{"_UNSUPPORTED", meaning{ErrInvalid, ""}},
}

// kindOf maps the API's code, or where that says nothing the status, to a kind and a remedy. An answer without a code
// did not come from the API: that a proxy finds nothing at a path must not read as "the storage is gone".
func kindOf(code string, status int) (kind error, remedy string) {
	if m, known := codes[code]; known {
		return m.kind, m.remedy
	}
	switch {
	case status == http.StatusUnauthorized:
		return ErrUnauthorized, codes[upcloud.ErrCodeAuthenticationFailed].remedy
	case status == http.StatusTooManyRequests || status >= http.StatusInternalServerError:
		return ErrUnavailable, remedyWait
	case code == "" && status == http.StatusForbidden:
		return ErrForbidden, "grant the API user the right to this"
	case code == "":
		return ErrUnavailable, "check " + client.EnvDebugAPIBaseURL + " and what stands between here and the API"
	}
	for _, e := range endings {
		if strings.HasSuffix(code, e.ending) {
			return e.kind, e.remedy
		}
	}
	switch status {
	case http.StatusPaymentRequired:
		return ErrExhausted, remedyCredits
	case http.StatusForbidden:
		return ErrForbidden, "grant the API user the right to this"
	case http.StatusNotFound, http.StatusGone:
		return ErrNotFound, ""
	case http.StatusConflict, http.StatusLocked:
		return ErrBusy, remedyWait
	case http.StatusRequestTimeout:
		return ErrUnavailable, remedyWait
	}
	return ErrInvalid, ""
}
