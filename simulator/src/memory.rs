//! Memory: regions far from each other, each access checked against one of them.
//!
//! An address says its region: the number, from 1, stands above bit 40. The regions in front are the code with its constants
//! and the stack. An access that begins or ends outside of its region is an error, whatever lies elsewhere.

/// Where the code lies.
pub const CODE: u64 = 1 << REGION_BITS;
/// Where the stack begins.
pub const STACK: u64 = 2 << REGION_BITS;

const REGION_BITS: u32 = 40;

/// What may be done to a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Loads.
    Read,
    /// Loads and stores.
    ReadWrite,
}

#[derive(Clone, Debug)]
struct Region {
    bytes: Vec<u8>,
    access: Access,
}

/// All memory of a program.
#[derive(Clone, Debug)]
pub struct Memory {
    regions: Vec<Region>,
}

impl Default for Memory {
    fn default() -> Memory {
        Memory::new()
    }
}

impl Memory {
    /// Code and stack, both empty.
    pub fn new() -> Memory {
        let region = |access| Region { bytes: Vec::new(), access };
        Memory { regions: vec![region(Access::Read), region(Access::ReadWrite)] }
    }

    /// Adds a region; gives its address.
    pub fn add(&mut self, bytes: Vec<u8>, access: Access) -> u64 {
        self.regions.push(Region { bytes, access });
        (self.regions.len() as u64) << REGION_BITS
    }

    /// The contents of the region that begins at an address that [`Memory::add`] gave.
    pub fn contents(&self, address: u64) -> &[u8] {
        &self.regions[(address >> REGION_BITS) as usize - 1].bytes
    }

    /// Takes a region's contents out of it.
    pub fn take(&mut self, address: u64) -> Vec<u8> {
        std::mem::take(&mut self.regions[(address >> REGION_BITS) as usize - 1].bytes)
    }

    pub(crate) fn replace(&mut self, address: u64, bytes: Vec<u8>) {
        self.regions[(address >> REGION_BITS) as usize - 1].bytes = bytes;
    }

    #[inline(always)]
    fn place(&self, address: u64) -> (usize, usize) {
        // Region 0 does not exist: its number wraps around to one that does not either.
        ((address >> REGION_BITS).wrapping_sub(1) as usize, (address & ((1 << REGION_BITS) - 1)) as usize)
    }

    /// Loads bytes.
    #[inline(always)]
    pub fn read(&self, address: u64, bytes: usize) -> Result<&[u8], String> {
        let (region, offset) = self.place(address);
        let found = self.regions.get(region).and_then(|r| r.bytes.get(offset..offset + bytes));
        found.ok_or_else(|| self.outside(address, bytes, "load"))
    }

    /// The place of a store.
    #[inline(always)]
    pub fn write(&mut self, address: u64, bytes: usize) -> Result<&mut [u8], String> {
        let (region, offset) = self.place(address);
        match self.regions.get(region).filter(|r| r.access == Access::ReadWrite).map(|r| r.bytes.len()) {
            Some(len) if offset + bytes <= len => Ok(&mut self.regions[region].bytes[offset..offset + bytes]),
            _ => Err(self.outside(address, bytes, "store")),
        }
    }

    /// Loads an integer of up to 8 bytes, zero-extended.
    #[inline(always)]
    pub fn load(&self, address: u64, bytes: usize) -> Result<u64, String> {
        let mut word = [0; 8];
        word[..bytes].copy_from_slice(self.read(address, bytes)?);
        Ok(u64::from_le_bytes(word))
    }

    /// Stores the low bytes of an integer.
    #[inline(always)]
    pub fn store(&mut self, address: u64, bytes: usize, x: u64) -> Result<(), String> {
        self.write(address, bytes)?.copy_from_slice(&x.to_le_bytes()[..bytes]);
        Ok(())
    }

    #[cold]
    fn outside(&self, address: u64, bytes: usize, what: &str) -> String {
        let (region, offset) = self.place(address);
        let name = match region {
            0 => "the code".to_string(),
            1 => "the stack".to_string(),
            n => format!("region {}", n as i64 - 2),
        };
        match self.regions.get(region) {
            Some(r) => {
                format!("a {what} of {bytes} bytes at {offset} of {name}: {} bytes, {:?}", r.bytes.len(), r.access)
            }
            None => format!("a {what} of {bytes} bytes at {address:#x}, where nothing is"),
        }
    }
}
