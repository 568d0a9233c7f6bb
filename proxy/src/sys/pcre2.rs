//! PCRE2's interpreter with a callout that can stop it, which the safe wrapper `pcre2` does not offer. The JIT compiler,
//! which needs memory that is writable and executable, is never asked for.

use std::{
    alloc::{self, Layout},
    ffi::{c_int, c_void},
    fmt,
    ops::Range,
    ptr::{self, NonNull},
};

use pcre2_sys::{
    PCRE2_ANCHORED, PCRE2_AUTO_CALLOUT, PCRE2_CASELESS, PCRE2_ERROR_CALLOUT, PCRE2_ERROR_DEPTHLIMIT,
    PCRE2_ERROR_HEAPLIMIT, PCRE2_ERROR_MATCHLIMIT, PCRE2_ERROR_NOMEMORY, PCRE2_INFO_CAPTURECOUNT,
    PCRE2_INFO_SIZE, PCRE2_NO_AUTO_CAPTURE, pcre2_code_8, pcre2_code_free_8, pcre2_compile_8,
    pcre2_compile_context_create_8, pcre2_compile_context_free_8, pcre2_general_context_8,
    pcre2_general_context_create_8, pcre2_general_context_free_8, pcre2_get_error_message_8,
    pcre2_get_match_data_heapframes_size_8, pcre2_get_ovector_pointer_8, pcre2_match_8,
    pcre2_match_context_8, pcre2_match_context_create_8, pcre2_match_context_free_8, pcre2_match_data_8,
    pcre2_match_data_create_8, pcre2_match_data_free_8, pcre2_pattern_info_8, pcre2_set_heap_limit_8,
    pcre2_set_match_limit_8,
};

type Callout = unsafe extern "C" fn(block: *mut c_void, data: *mut c_void) -> c_int;

// Not among the crate's bindings.
unsafe extern "C" {
    fn pcre2_set_callout_8(
        context: *mut pcre2_match_context_8,
        callout: Option<Callout>,
        data: *mut c_void,
    ) -> c_int;
}

/// Lets PCRE2 allocate as all else does, not with malloc(3): what a load balancer's expressions have taken goes back with
/// it.
struct Allocator(*mut pcre2_general_context_8);

impl Allocator {
    /// What is null, because memory is not to be had, stands for malloc(3).
    fn new() -> Self {
        // SAFETY: both functions keep to what PCRE2 asks of such ones (pcre2api(3)), and need no data.
        Self(unsafe { pcre2_general_context_create_8(Some(allocate), Some(release), ptr::null_mut()) })
    }
}

impl Drop for Allocator {
    fn drop(&mut self) {
        // SAFETY: it is ours, or null, which is ignored; what was made with it has a copy.
        unsafe { pcre2_general_context_free_8(self.0) };
    }
}

/// Bytes before a block, which say how long it is; the alignment of a block, as malloc(3) has it.
const HEADER: usize = 16;

unsafe extern "C" fn allocate(size: usize, _data: *mut c_void) -> *mut c_void {
    let Some(layout) = size.checked_add(HEADER).and_then(|all| Layout::from_size_align(all, HEADER).ok())
    else {
        return ptr::null_mut();
    };
    // SAFETY: the layout is not of size 0, and the header has room for a usize and is aligned for it.
    unsafe {
        let block = alloc::alloc(layout);
        if block.is_null() {
            return ptr::null_mut();
        }
        block.cast::<usize>().write(layout.size());
        block.add(HEADER).cast()
    }
}

unsafe extern "C" fn release(block: *mut c_void, _data: *mut c_void) {
    if block.is_null() {
        return;
    }
    // SAFETY: what is not null was returned by `allocate`, which has written the size of its valid layout before it.
    unsafe {
        let block = block.cast::<u8>().sub(HEADER);
        let size = block.cast::<usize>().read();
        alloc::dealloc(block, Layout::from_size_align_unchecked(size, HEADER));
    }
}

/// How an expression is compiled.
#[derive(Clone, Copy, Default)]
pub(crate) struct Options {
    /// PCRE2_CASELESS
    pub(crate) ignore_case: bool,
    /// PCRE2_NO_AUTO_CAPTURE: only groups with a name capture.
    pub(crate) named_groups_only: bool,
    /// PCRE2_AUTO_CALLOUT: matching calls back before each item of the expression.
    pub(crate) callouts: bool,
}

/// Why PCRE2 refuses an expression.
pub(crate) struct CompileError {
    code: c_int,
    offset: usize,
}

impl CompileError {
    /// Whether the expression refers to a group that does not exist.
    pub(crate) fn is_missing_group(&self) -> bool {
        // PCRE2_ERROR_BAD_SUBPATTERN_REFERENCE
        self.code == 115
    }
}

impl fmt::Display for CompileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0_u8; 256];
        // SAFETY: the buffer is writable for the length that is given; the result is cut to it and ends with a NUL.
        unsafe { pcre2_get_error_message_8(self.code, text.as_mut_ptr(), text.len()) };
        let length = text.iter().position(|byte| *byte == 0).unwrap_or_default();
        write!(f, "{} (offset {})", String::from_utf8_lossy(&text[..length]), self.offset)
    }
}

/// A compiled expression.
#[derive(Debug)]
pub(crate) struct Code(NonNull<pcre2_code_8>);

// SAFETY: compiled code is only read by matching, and may be used by several threads at once (pcre2api(3),
// "MULTITHREADING"); it is freed with its owner.
unsafe impl Send for Code {}
// SAFETY: the same.
unsafe impl Sync for Code {}

impl Code {
    pub(crate) fn compile(expression: &str, options: Options) -> Result<Self, CompileError> {
        let flag = |set, flag| if set { flag } else { 0 };
        let flags = flag(options.ignore_case, PCRE2_CASELESS)
            | flag(options.named_groups_only, PCRE2_NO_AUTO_CAPTURE)
            | flag(options.callouts, PCRE2_AUTO_CALLOUT);
        let (mut code, mut offset) = (0, 0);
        let allocator = Allocator::new();
        // SAFETY: the pattern is readable for its length and not kept; the context is ours, or null, for which defaults
        // apply, and freed once. The code has a copy of what it needs of it.
        let compiled = unsafe {
            let context = pcre2_compile_context_create_8(allocator.0);
            let compiled = pcre2_compile_8(
                expression.as_ptr(),
                expression.len(),
                flags,
                &raw mut code,
                &raw mut offset,
                context,
            );
            pcre2_compile_context_free_8(context);
            compiled
        };
        NonNull::new(compiled).map(Self).ok_or(CompileError { code, offset })
    }

    /// Bytes of memory that it takes.
    pub(crate) fn size(&self) -> usize {
        let mut size = 0_usize;
        // SAFETY: PCRE2_INFO_SIZE writes one size_t.
        unsafe { pcre2_pattern_info_8(self.0.as_ptr(), PCRE2_INFO_SIZE, (&raw mut size).cast()) };
        size
    }

    /// The number of the last group that captures; 0 without one.
    pub(crate) fn groups(&self) -> u32 {
        let mut groups = 0_u32;
        // SAFETY: PCRE2_INFO_CAPTURECOUNT writes one uint32_t.
        unsafe {
            pcre2_pattern_info_8(self.0.as_ptr(), PCRE2_INFO_CAPTURECOUNT, (&raw mut groups).cast());
        }
        groups
    }
}

impl Drop for Code {
    fn drop(&mut self) {
        // SAFETY: it is ours, and freed once.
        unsafe { pcre2_code_free_8(self.0.as_ptr()) };
    }
}

/// A match was not looked for to the end: a callout or a limit has stopped it, or memory was not to be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stopped {
    /// PCRE2_ERROR_MATCHLIMIT.
    MatchLimit,
    /// Anything else.
    Other,
}

/// Where one attempt may match.
#[derive(Clone, Copy)]
pub(crate) enum Attempt {
    /// From any place of the subject.
    Anywhere,
    /// At this offset alone, and with at most this many backtracking points (`match_limit`).
    At(usize, u32),
}

/// PCRE2's `match_limit`, its default and HAProxy's; it holds for each place that a match may begin at.
const MATCH_LIMIT: u32 = 10_000_000;

/// The whole match and its first nine groups.
pub(crate) const GROUPS: usize = 10;

/// What the groups of a match have matched; `None`: nothing, or there is no such group.
pub(crate) type Groups = [Option<Range<usize>>; GROUPS];

/// What matching needs beside the code; it serves one match at a time.
#[derive(Debug)]
pub(crate) struct Interpreter {
    context: NonNull<pcre2_match_context_8>,
    data: NonNull<pcre2_match_data_8>,
}

impl Interpreter {
    /// `None` when memory is not to be had. `heap_limit` is in KiB.
    pub(crate) fn new(heap_limit: u32) -> Option<Self> {
        let allocator = Allocator::new();
        // SAFETY: the general context is ours, or null; the number of offset pairs is at least one.
        let (context, data) = unsafe {
            (pcre2_match_context_create_8(allocator.0), pcre2_match_data_create_8(GROUPS as u32, allocator.0))
        };
        match (NonNull::new(context), NonNull::new(data)) {
            (Some(context), Some(data)) => {
                // SAFETY: the context is valid.
                unsafe { pcre2_set_heap_limit_8(context.as_ptr(), heap_limit) };
                Some(Self { context, data })
            }
            _ => {
                // SAFETY: each is valid or null, which both functions ignore.
                unsafe {
                    pcre2_match_context_free_8(context);
                    pcre2_match_data_free_8(data);
                }
                None
            }
        }
    }

    /// Bytes kept for backtracking.
    pub(crate) fn heap(&self) -> usize {
        // SAFETY: the match data is valid.
        unsafe { pcre2_get_match_data_heapframes_size_8(self.data.as_ptr()) }
    }

    /// Whether the subject has a match. `go_on` is called before each item of an expression that was compiled with
    /// [`Options::callouts`], and stops the search by `false`; between two calls at most the subject is looked through
    /// once.
    pub(crate) fn is_match<F: FnMut() -> bool>(
        &mut self,
        code: &Code,
        subject: &[u8],
        attempt: Attempt,
        go_on: F,
    ) -> Result<bool, Stopped> {
        self.search(code, subject, attempt, go_on).map(|found| found >= 0)
    }

    /// The groups of the first match. `go_on` is as for [`is_match`](Self::is_match).
    pub(crate) fn find<F: FnMut() -> bool>(
        &mut self,
        code: &Code,
        subject: &[u8],
        go_on: F,
    ) -> Result<Option<Groups>, Stopped> {
        let found = self.search(code, subject, Attempt::Anywhere, go_on)?;
        let Ok(found) = usize::try_from(found) else { return Ok(None) };
        // 0: there are more groups than room for their offsets.
        let count = if found == 0 { GROUPS } else { found.min(GROUPS) };
        // SAFETY: the match data is valid and has room for so many pairs, of which a match has written the first `count`.
        let offsets =
            unsafe { std::slice::from_raw_parts(pcre2_get_ovector_pointer_8(self.data.as_ptr()), 2 * count) };
        let mut groups = Groups::default();
        for (group, pair) in groups.iter_mut().zip(offsets.as_chunks::<2>().0) {
            // Of a group that has matched nothing these are PCRE2_UNSET; `\K` may put an end before its beginning.
            let [start, end] = *pair;
            *group = (start <= end && end <= subject.len()).then_some(start..end);
        }
        Ok(Some(groups))
    }

    /// What pcre2_match(3) returns: a negative number when there is no match.
    fn search<F: FnMut() -> bool>(
        &mut self,
        code: &Code,
        subject: &[u8],
        attempt: Attempt,
        mut go_on: F,
    ) -> Result<c_int, Stopped> {
        unsafe extern "C" fn callout<F: FnMut() -> bool>(_block: *mut c_void, data: *mut c_void) -> c_int {
            // SAFETY: what was set as data is `go_on` below, and nothing else uses it during the match.
            let go_on = unsafe { &mut *data.cast::<F>() };
            if go_on() { 0 } else { PCRE2_ERROR_CALLOUT }
        }
        let (start, flags, limit) = match attempt {
            Attempt::Anywhere => (0, 0, MATCH_LIMIT),
            Attempt::At(start, limit) => (start.min(subject.len()), PCRE2_ANCHORED, limit),
        };
        // SAFETY: code, context and match data are valid, and the latter two are borrowed by us alone. The subject is
        // readable for its length, and no result that points into it is asked for later. `go_on` outlives the match;
        // the context does not use it afterwards, because each match sets its own.
        let found = unsafe {
            let context = self.context.as_ptr();
            pcre2_set_callout_8(context, Some(callout::<F>), (&raw mut go_on).cast());
            pcre2_set_match_limit_8(context, limit);
            pcre2_match_8(
                code.0.as_ptr(),
                subject.as_ptr(),
                subject.len(),
                start,
                flags,
                self.data.as_ptr(),
                context,
            )
        };
        match found {
            PCRE2_ERROR_MATCHLIMIT => Err(Stopped::MatchLimit),
            PCRE2_ERROR_CALLOUT | PCRE2_ERROR_DEPTHLIMIT | PCRE2_ERROR_HEAPLIMIT | PCRE2_ERROR_NOMEMORY => {
                Err(Stopped::Other)
            }
            // Below 0: no match; not UTF-8 where the expression wants it; a recursion that would never end.
            found => Ok(found),
        }
    }
}

impl Drop for Interpreter {
    fn drop(&mut self) {
        // SAFETY: they are ours, and freed once.
        unsafe {
            pcre2_match_data_free_8(self.data.as_ptr());
            pcre2_match_context_free_8(self.context.as_ptr());
        }
    }
}
