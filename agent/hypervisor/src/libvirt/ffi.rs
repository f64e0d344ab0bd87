//! The calls to libvirt that crate `virt` lacks or gets wrong: events, the state of a domain (its own drops the error), job
//! statistics (its own frees a null pointer), abort, bulk statistics (its own leaks), dirty rates.

#![allow(
    unsafe_code,
    reason = "the C interface of libvirt; each block says why it is sound"
)]

use std::collections::BTreeMap;
use std::ffi::{CStr, c_int, c_uint, c_void};
use std::panic::catch_unwind;

use tokio::sync::broadcast;
use uuid::Uuid;
use virt::connect::Connect;
use virt::domain::Domain;
use virt::error::Error;
use virt::sys;

use crate::types::{Event, StopCause};

/// Typed parameters by name, numbers only.
pub type Numbers = BTreeMap<String, u64>;

/// Copies numeric parameters; one that is negative is a number that libvirt does not know.
///
/// # Safety
/// `params` points at `count` valid parameters.
unsafe fn numbers(params: sys::virTypedParameterPtr, count: c_int) -> Numbers {
    let mut map = Numbers::new();
    for index in 0..usize::try_from(count).unwrap_or(0) {
        // SAFETY: the caller vouches for `count` elements; the union is read as its tag says.
        let (name, value) = unsafe {
            let param = &*params.add(index);
            let value = match param.type_ as u32 {
                sys::VIR_TYPED_PARAM_ULLONG => Some(param.value.ul),
                sys::VIR_TYPED_PARAM_UINT => Some(u64::from(param.value.ui)),
                sys::VIR_TYPED_PARAM_LLONG => u64::try_from(param.value.l).ok(),
                sys::VIR_TYPED_PARAM_INT => u64::try_from(param.value.i).ok(),
                _ => None,
            };
            let Some(value) = value else { continue };
            (
                CStr::from_ptr(param.field.as_ptr())
                    .to_string_lossy()
                    .into_owned(),
                value,
            )
        };
        map.insert(name, value);
    }
    map
}

/// The state of a domain, and the reason for it, which is numbered by state. An error is no state: a daemon that is gone
/// says nothing about its domains.
pub fn state(domain: &Domain) -> Result<(sys::virDomainState, u32), Error> {
    let (mut state, mut reason): (c_int, c_int) = (-1, -1);
    // SAFETY: the domain is alive for the call; the pointers are to locals.
    match unsafe { sys::virDomainGetState(domain.as_ptr(), &mut state, &mut reason, 0) } {
        0.. => Ok((state as sys::virDomainState, reason as u32)),
        _ => Err(Error::last_error()),
    }
}

/// Statistics of a domain's job: its type (0: none) and numbers.
pub fn job_stats(domain: &Domain) -> Result<(i32, Numbers), Error> {
    let (mut kind, mut count, mut params) = (0, 0, std::ptr::null_mut());
    // SAFETY: the pointers are to locals; libvirt allocates the array, which is freed below.
    unsafe {
        if sys::virDomainGetJobStats(domain.as_ptr(), &mut kind, &mut params, &mut count, 0) < 0 {
            return Err(Error::last_error());
        }
        let map = numbers(params, count);
        sys::virTypedParamsFree(params, count);
        Ok((kind, map))
    }
}

/// Aborts a domain's job.
pub fn abort_job(domain: &Domain) -> Result<(), Error> {
    // SAFETY: the domain is alive for the call.
    match unsafe { sys::virDomainAbortJob(domain.as_ptr()) } {
        0.. => Ok(()),
        _ => Err(Error::last_error()),
    }
}

fn uuid_of(domain: sys::virDomainPtr) -> Option<Uuid> {
    let mut bytes = [0_u8; 16];
    // SAFETY: libvirt writes 16 bytes (VIR_UUID_BUFLEN) into the buffer.
    let result = unsafe { sys::virDomainGetUUID(domain, bytes.as_mut_ptr()) };
    (result == 0).then(|| Uuid::from_bytes(bytes))
}

/// A domain's numbers, and its texts by name.
pub type RawStats = (Uuid, Numbers, BTreeMap<String, String>);

/// Numbers and names of block devices and NICs of every active domain.
pub fn all_stats(connect: &Connect) -> Result<Vec<RawStats>, Error> {
    let wanted = sys::VIR_DOMAIN_STATS_CPU_TOTAL
        | sys::VIR_DOMAIN_STATS_BALLOON
        | sys::VIR_DOMAIN_STATS_INTERFACE
        | sys::VIR_DOMAIN_STATS_BLOCK;
    let mut records = std::ptr::null_mut();
    // SAFETY: the pointer is to a local; libvirt allocates the list, which `taken` frees.
    unsafe {
        let count = sys::virConnectGetAllDomainStats(
            connect.as_ptr(),
            wanted,
            &mut records,
            sys::VIR_CONNECT_GET_ALL_DOMAINS_STATS_ACTIVE,
        );
        taken(records, count)
    }
}

/// Copies records of statistics, and frees them.
///
/// # Safety
/// `records` and `count` are what one of libvirt's calls for statistics has just returned.
unsafe fn taken(
    records: *mut sys::virDomainStatsRecordPtr,
    count: c_int,
) -> Result<Vec<RawStats>, Error> {
    if count < 0 {
        return Err(Error::last_error());
    }
    let mut all = Vec::new();
    // SAFETY: the caller vouches for `count` records, each valid until the list is freed.
    unsafe {
        for index in 0..usize::try_from(count).unwrap_or(0) {
            let record = &**records.add(index);
            if let Some(uuid) = uuid_of(record.dom) {
                all.push((
                    uuid,
                    numbers(record.params, record.nparams),
                    strings(record.params, record.nparams),
                ));
            }
        }
        sys::virDomainStatsRecordListFree(records);
    }
    Ok(all)
}

/// `virDomainStartDirtyRateCalc`: domain, seconds, flags.
pub type StartDirtyRate = unsafe extern "C" fn(sys::virDomainPtr, c_int, c_uint) -> c_int;

/// The call that has a domain's writes sampled; none in libvirt before 7.2. It is looked up, as an agent that is linked to
/// it would not start at all beside an older one.
pub fn start_dirty_rate_call() -> Option<StartDirtyRate> {
    let name = c"virDomainStartDirtyRateCalc";
    // SAFETY: the name is a C string; nothing but its address is asked for.
    let address = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    // SAFETY: the function of that name has this type in every libvirt that has it.
    (!address.is_null())
        .then(|| unsafe { std::mem::transmute::<*mut c_void, StartDirtyRate>(address) })
}

/// Begins to sample, for a second, how fast a domain writes to its memory: of some of its pages, without tracking writes.
pub fn start_dirty_rate(domain: &Domain, start: StartDirtyRate) -> Result<(), Error> {
    let mode = sys::VIR_DOMAIN_DIRTYRATE_MODE_PAGE_SAMPLING;
    // SAFETY: the domain is alive for the call; one second is the least that it takes.
    match unsafe { start(domain.as_ptr(), 1, mode) } {
        0.. => Ok(()),
        _ => Err(Error::last_error()),
    }
}

/// What is known of the last sample of a domain's writes; empty when it is gone.
pub fn dirty_rate(domain: &Domain) -> Result<Numbers, Error> {
    let mut records = std::ptr::null_mut();
    // SAFETY: the list ends with a null pointer, as libvirt wants it, and its domain is alive for the call; libvirt
    // allocates the records, which `taken` frees.
    let all = unsafe {
        let mut domains = [domain.as_ptr(), std::ptr::null_mut()];
        let count = sys::virDomainListGetStats(
            domains.as_mut_ptr(),
            sys::VIR_DOMAIN_STATS_DIRTYRATE,
            &mut records,
            0,
        );
        taken(records, count)?
    };
    let own = all.into_iter().next();
    Ok(own.map(|(_, numbers, _)| numbers).unwrap_or_default())
}

/// Copies text parameters.
///
/// # Safety
/// `params` points at `count` valid parameters.
unsafe fn strings(params: sys::virTypedParameterPtr, count: c_int) -> BTreeMap<String, String> {
    let mut map = BTreeMap::new();
    for index in 0..usize::try_from(count).unwrap_or(0) {
        // SAFETY: as in `numbers`; a text parameter is a C string.
        unsafe {
            let param = &*params.add(index);
            if param.type_ as u32 == sys::VIR_TYPED_PARAM_STRING && !param.value.s.is_null() {
                let name = CStr::from_ptr(param.field.as_ptr())
                    .to_string_lossy()
                    .into_owned();
                map.insert(
                    name,
                    CStr::from_ptr(param.value.s).to_string_lossy().into_owned(),
                );
            }
        }
    }
    map
}

/// What the callbacks send.
pub struct Sink {
    /// Events for everybody.
    pub events: broadcast::Sender<Event>,
    /// Numbers of jobs that ended, by domain.
    pub jobs: std::sync::mpsc::Sender<(Uuid, Numbers)>,
}

/// Registers for lifecycle and job events; they stop with the connection.
pub fn register(connect: &Connect, sink: &'static Sink) -> Result<(), Error> {
    let opaque = std::ptr::from_ref(sink).cast_mut().cast::<c_void>();
    let lifecycle: unsafe extern "C" fn(
        sys::virConnectPtr,
        sys::virDomainPtr,
        c_int,
        c_int,
        *mut c_void,
    ) -> c_int = on_lifecycle;
    let job: unsafe extern "C" fn(
        sys::virConnectPtr,
        sys::virDomainPtr,
        sys::virTypedParameterPtr,
        c_int,
        *mut c_void,
    ) = on_job;
    // SAFETY: libvirt's interface takes every callback as the generic type and calls it with the
    // arguments of its event id; the sink lives for ever.
    unsafe {
        let generic = std::mem::transmute::<*const c_void, sys::virConnectDomainEventGenericCallback>(
            lifecycle as *const c_void,
        );
        let first = sys::virConnectDomainEventRegisterAny(
            connect.as_ptr(),
            std::ptr::null_mut(),
            sys::VIR_DOMAIN_EVENT_ID_LIFECYCLE as c_int,
            generic,
            opaque,
            None,
        );
        let generic = std::mem::transmute::<*const c_void, sys::virConnectDomainEventGenericCallback>(
            job as *const c_void,
        );
        let second = sys::virConnectDomainEventRegisterAny(
            connect.as_ptr(),
            std::ptr::null_mut(),
            sys::VIR_DOMAIN_EVENT_ID_JOB_COMPLETED as c_int,
            generic,
            opaque,
            None,
        );
        if first < 0 || second < 0 {
            return Err(Error::last_error());
        }
    }
    Ok(())
}

unsafe extern "C" fn on_lifecycle(
    _: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    kind: c_int,
    detail: c_int,
    opaque: *mut c_void,
) -> c_int {
    // A panic may not cross into C; the event is then lost, and the periodic list makes up for it.
    let _ = catch_unwind(|| {
        // SAFETY: `opaque` is the sink that was registered, which lives for ever.
        let sink = unsafe { &*opaque.cast::<Sink>() };
        if let Some(event) =
            uuid_of(domain).and_then(|uuid| event(uuid, kind as u32, detail as u32))
        {
            // Nobody listening is no error.
            let _ = sink.events.send(event);
        }
    });
    0
}

unsafe extern "C" fn on_job(
    _: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    params: sys::virTypedParameterPtr,
    count: c_int,
    opaque: *mut c_void,
) {
    let _ = catch_unwind(|| {
        // SAFETY: as above; the parameters are valid during the call.
        let (sink, map) = unsafe { (&*opaque.cast::<Sink>(), numbers(params, count)) };
        if let Some(uuid) = uuid_of(domain) {
            let _ = sink.jobs.send((uuid, map));
        }
    });
}

fn event(uuid: Uuid, kind: u32, detail: u32) -> Option<Event> {
    Some(match kind {
        sys::VIR_DOMAIN_EVENT_STARTED => Event::Started(uuid),
        sys::VIR_DOMAIN_EVENT_RESUMED => Event::Resumed(uuid),
        sys::VIR_DOMAIN_EVENT_SUSPENDED => match detail {
            sys::VIR_DOMAIN_EVENT_SUSPENDED_MIGRATED => Event::SwitchedOver(uuid),
            _ => Event::Suspended(uuid),
        },
        sys::VIR_DOMAIN_EVENT_STOPPED => Event::Stopped(
            uuid,
            match detail {
                sys::VIR_DOMAIN_EVENT_STOPPED_SHUTDOWN => StopCause::GuestShutdown,
                sys::VIR_DOMAIN_EVENT_STOPPED_DESTROYED => StopCause::Destroyed,
                sys::VIR_DOMAIN_EVENT_STOPPED_MIGRATED => StopCause::Migrated,
                _ => StopCause::Crashed,
            },
        ),
        _ => return None,
    })
}
